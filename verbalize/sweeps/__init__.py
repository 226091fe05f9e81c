"""Sweeps: a search over any keys of a recipe, by Optuna, on validation users; test only for the final comparison.

`settings` is the YAML file, `space` what may be drawn and that all of it builds, `sampling` and `storage` the bridge to
Optuna, `ownership` whose trial is whose and what becomes of a killed worker's, `measure` one configuration's number,
`worker` the loop, `final` the honest number on test users, `results` what is written down.
"""
