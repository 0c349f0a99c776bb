"""What every other package uses: errors, files, parameters, records, the machine."""
