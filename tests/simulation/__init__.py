"""The seeded simulation: random schedules of faults, arrivals and departures, on a clock that is not real.

A seed is a schedule: who serves, how well, who asks, and when they leave. Each is played through the whole gateway
(`shared.gateway` and below) in virtual time, and every promise that can be told from outside is checked. To replay a
seed that failed, and read what happened in which order, run `python -m tests.simulation SEED`; the last lines are what
was violated. `python -m tests.simulation --seeds 0:20000` looks for more of them, about two hundred a second.

`schedule` and `scripts` draw, `provider` and `caller` act, `world` plays, `promises` tells what is promised; the rest
checks: `asking` each call when it begins, `ending` each request when all is over, with the help of `timing`, `racing`,
`availability`, `completeness`, `naming`, `pieces` and `circuits`.
"""
