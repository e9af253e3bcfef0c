"""The paper's run, command by command, at full model size on stand-ins: `benchmarks.rehearsal`."""
