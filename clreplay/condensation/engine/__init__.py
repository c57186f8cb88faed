"""What the condensing engines share: groups of classes, the first images, progress files, threads, execution."""
