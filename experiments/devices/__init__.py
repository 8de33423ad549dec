"""Programs over devices and processes: strategies, several hosts, batched drawing."""
