"""Entry points of the pipeline, one a stage: each reads artifacts, computes, writes artifacts.

Each is a function ``run(config, …)`` that the command line and, through it, the workflow call.
"""
