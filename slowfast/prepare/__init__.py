"""From the official files of a data set to list files; one module per data set, and what they share.

annotation.py    reading the official text files
frame_folder.py  what a folder of frames holds
video_files.py   where the videos are and what they hold
extract.py       videos to folders of frames
lists.py         lists, class names and the report of what is left out
"""
