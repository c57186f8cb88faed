"""What every room stands on and no method is about: keyed chance, files, devices, progress, provenance."""
