"""From the official files of a data set to list files, and the check of what a configuration reads."""
