"""The workflow language, pure: text in, records and decisions out; no process, no socket, no clock.

In the order of the data: `yaml` (nodes with places), `shape`, `element` and `schema` (what a file may say), `reader` with
`job_reader`, `step_reader` and `container_reader` (the records of `syntax`), `action_file` (the same of an `action.yml`), `template` and
`expression` (what is evaluated later), `filter` over `event`, `pattern` and `cron` (whether an event starts a workflow), `inputs`, `called` (the workflows it calls), `plan` with `matrix` and
`policy` (the jobs of a run), `preview` (what is known of them before), `admission` (concurrency groups), `outcome` (what follows from how jobs and steps ended), `context` and `shell` (what a
step gets), `command` and `command_file` (what it says back), `masker`. `detect` makes a workflow where there is none; `answer` asks one expression by itself; `diagram` with
`layout` draws what jobs need.
"""
