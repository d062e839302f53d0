# Probes on the features of the linear autoencoders: Gabor responses, depth, classes.


PROBES = ("gabor", "depth", "class")


rule probe_features:
    input:
        data=str(L.data("{dataset}")),
        solutions=str(L.linear("{dataset}")),
    output:
        jackknifed("probe_{probe}"),
    log:
        f"{LOGS}/probe_{{probe}}/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/probe_{{probe}}/{{dataset}}.tsv"
    wildcard_constraints:
        probe="|".join(PROBES),
    conda:
        ENVIRONMENT
    threads: threads_of
    params:
        config=RESOLVED,
        code=lambda wildcards: fingerprint(f"spatialmae.stages.probe_{wildcards.probe}"),
        settings=settings("first_seed", "groups", "patch_sizes", "n_components", "sigmas"),
    message:
        "Probing linear features ({wildcards.probe}): {wildcards.dataset}"
    shell:
        "python -m spatialmae probe {wildcards.probe} {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule probes:
    input:
        [str(L.table(f"probe_{probe}", dataset)) for probe in PROBES for dataset in having(probe)],
