"""What the subcommands of `mos` do, one file per audience. Imported only when a subcommand runs."""
