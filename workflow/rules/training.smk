# Training of the non-linear models. A stage is a plan; the training command makes its runs, side by side, and goes on
# with those that an earlier call left unfinished, or another machine has made.


rule plan_training:
    input:
        config=ancient(str(L.config)),
        code=code("spatialmae.stages.plan"),
    output:
        str(L.plan("{stage}")),
    log:
        f"{LOGS}/plan/{{stage}}.log",
    benchmark:
        f"{BENCHMARKS}/plan/{{stage}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        runs=runs_of,
    message:
        "Planning the training stage {wildcards.stage}"
    shell:
        "python -m spatialmae plan {wildcards.stage} --config {input.config} > {log} 2>&1"


# The runs' folders are no outputs: Snakemake deletes those of a failed job, and with them what it would go on from.
# So it sees none that is lost: a manifest that no longer is true is removed here, and the command trains what is lost.
if workflow.is_main_process and not is_run_under_way():
    for stage in STAGES:
        if problem := damage(L.manifest(stage)):
            L.manifest(stage).unlink(missing_ok=True)
            print(f"{L.manifest(stage)}: {problem}; removed, snakemake trains what is missing", file=sys.stderr)


# A stage takes all cores, so that one stage trains at a time, and comes first, since it is the longest.
rule train_models:
    input:
        plan=str(L.plan("{stage}")),
        data=data_of,
        code=code("spatialmae.train.command"),
    output:
        str(L.manifest("{stage}")),
    log:
        f"{LOGS}/train/{{stage}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{stage}}.tsv"
    priority: 100
    conda:
        ENVIRONMENT
    threads: workflow.cores
    params:
        # Whether runs made by other code are taken.
        keep_trained=os.environ.get("SPATIALMAE_KEEP_TRAINED", ""),
    message:
        "Training: {wildcards.stage}"
    shell:
        "python -m spatialmae train {input.plan} 2>&1 | tee {log}"


rule collect_training:
    input:
        config=ancient(str(L.config)),
        data=data_of,
        manifest=str(L.manifest("{stage}")),
        code=code("spatialmae.stages.training"),
    output:
        str(L.table("runs", "{stage}")),
        str(L.table("training", "{stage}")),
        str(L.table("validation", "{stage}")),
        reconstructions=str(L.reconstructions("{stage}")),
    log:
        f"{LOGS}/collect/{{stage}}.log",
    benchmark:
        f"{BENCHMARKS}/collect/{{stage}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        runs=runs_of,
    message:
        "Gathering the runs of {wildcards.stage}"
    shell:
        "python -m spatialmae collect {wildcards.stage} --config {input.config} > {log} 2>&1"


rule training:
    input:
        expand(
            str(L.table("{table}", "{stage}")),
            table=["runs", "training", "validation"],
            stage=STAGES,
        ),
        MANIFESTS,
