# Training of the non-linear models. A run is a job, which goes on where an earlier one was stopped, and takes what another
# machine has made. What an unfinished run needs to go on is no output, since Snakemake deletes those of a failed job.


rule train:
    input:
        data=lambda wildcards: str(L.data(RUNS[wildcards.run].dataset)),
        trunk=trunk_of,
    output:
        str(L.run("{run}")),
    log:
        f"{LOGS}/train/{{run}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{run}}.tsv"
    priority: 100  # the longest jobs, for which others wait
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.train.trainer"),
        settings=lambda wildcards: json.dumps(RUNS[wildcards.run].to_dict(), sort_keys=True),
        # Whether runs made by other code are taken, whatever today's does.
        keep_trained=os.environ.get("SPATIALMAE_KEEP_TRAINED", ""),
    message:
        "Training: {wildcards.run}"
    shell:
        "python -m spatialmae train-run {wildcards.run} --config {params.config:q} > {log:q} 2>&1"


rule collect_training:
    input:
        lambda wildcards: runs_of(wildcards.training),
        data=lambda wildcards: str(L.data(CONFIG.training[wildcards.training].dataset)),
    output:
        str(L.table("training_runs", "{training}")),
        str(L.table("training", "{training}")),
        str(L.table("training_validation", "{training}")),
        str(L.table("costs", "{training}")),
        reconstructions=str(L.reconstructions("{training}")),
    log:
        f"{LOGS}/collect/{{training}}.log",
    benchmark:
        f"{BENCHMARKS}/collect/{{training}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.training"),
    message:
        "Gathering the runs of {wildcards.training}"
    shell:
        "python -m spatialmae collect {wildcards.training} --config {params.config:q} > {log:q} 2>&1"


rule training:
    input:
        expand(
            str(L.table("{table}", "{training}")),
            table=["training_runs", "training", "training_validation"],
            training=TRAININGS,
        ),
