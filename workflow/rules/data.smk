# The resolved configuration, and images with targets and splits.
rule resolve_config:
    output:
        str(L.config),
    log:
        f"{LOGS}/resolve_config.log",
    benchmark:
        f"{BENCHMARKS}/resolve_config.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        settings=CONFIG.model_dump_json(),
    message:
        "Writing the resolved configuration"
    shell:
        "python -m spatialmae resolve --settings {params.settings:q} > {log} 2>&1"


rule prepare_data:
    input:
        config=ancient(str(L.config)),
        code=data_code,
        images=own_images,
    output:
        str(L.data("{dataset}")),
    log:
        f"{LOGS}/data/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/data/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        settings=settings("source", "first_seed"),
    message:
        "Preparing images: {wildcards.dataset}"
    shell:
        "python -m spatialmae data {wildcards.dataset} --config {input.config} > {log} 2>&1"


rule data:
    input:
        expand(str(L.data("{dataset}")), dataset=DATASETS),
