"""Files of a user that commands read: images, masks and strokes, volumes, scans."""
