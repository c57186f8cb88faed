"""The data sets, one a file; importing one enters it in the table."""
