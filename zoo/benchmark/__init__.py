"""Models of a study measured together: one process a model, taking turns. `zoo.bench` is the command.

`contestants` says what is measured, `turns` lets the processes take turns, `worker` is such a process, `restoring`
brings a stored run back to life in it, `timing` and `product` are its clock and its measure of the device;
`summary` makes numbers of the timings and `display` shows them.
"""
