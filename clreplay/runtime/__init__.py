"""What all rooms need and no method is about: keyed chance, files, devices, progress, provenance."""
