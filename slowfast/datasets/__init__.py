"""From list files to batches: records, frame sampling, decoding, augmentation, mixing and loading."""
