"""What all parts of the launcher share: the workspace's ledger, records and code, files
with lines, disks."""
