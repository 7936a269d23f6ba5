"""The program's commands: arguments, one call, exit status. One module a job."""
