"""Programs over devices and processes: parallel strategies, multi-process runs, batched sampling."""
