"""Files made by `make generate`; never edited by hand."""
