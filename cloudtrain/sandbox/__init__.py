"""The emulated cloud: EC2's API in front of real machines on this computer.

Started only as `python -m cloudtrain.sandbox serve --state DIR`, by
`cloudtrain.providers.sandbox`, and imported by nothing else: the road to a real cloud
must not depend on its rehearsal. moto keeps the records of EC2; what it lacks (time,
idempotency, in-use checks, images, machines) is here.

Seams: `machines.Kind` (how machines are made), `layer.Behaviour` (what happens to a call),
`metadata.answer` (what an instance is told of itself). Knobs, all files in the state
folder: `account.json` (quotas, capacity), `spot.json` (reclaims), `faults.json` (faults).
"""
