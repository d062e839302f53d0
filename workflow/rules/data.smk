# Images with targets and splits.
rule prepare_data:
    input:
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
        config=RESOLVED,
        code=lambda wildcards: fingerprint("spatialmae.stages.data", source_module(wildcards.dataset)),
        settings=settings("source", "first_seed"),
    message:
        "Preparing images: {wildcards.dataset}"
    shell:
        "python -m spatialmae data {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule data:
    input:
        expand(str(L.data("{dataset}")), dataset=DATASETS),
