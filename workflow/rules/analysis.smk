# Analyses of images and of the solutions; each writes tidy tables.
rule measure_statistics:
    input:
        data=str(L.data("{dataset}")),
    output:
        jackknifed("statistics", "statistics_summary"),
    log:
        f"{LOGS}/statistics/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/statistics/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.statistics"),
        settings=settings("first_seed", "groups"),
    message:
        "Measuring spatial statistics: {wildcards.dataset}"
    shell:
        "python -m spatialmae statistics {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule measure_features:
    input:
        data=str(L.data("{dataset}")),
        solutions=str(L.linear("{dataset}")),
    output:
        jackknifed("features"),
    log:
        f"{LOGS}/features/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/features/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.features"),
        settings=settings("first_seed", "groups", "patch_sizes", "n_components"),
    message:
        "Measuring variance and redundancy kept: {wildcards.dataset}"
    shell:
        "python -m spatialmae features {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule measure_reach:
    input:
        data=str(L.data("{dataset}")),
        solutions=str(L.linear("{dataset}")),
    output:
        jackknifed("reach", "reach_profile"),
    log:
        f"{LOGS}/reach/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/reach/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.reach"),
        settings=settings("first_seed", "groups", "patch_sizes", "n_components", "source"),
    message:
        "Measuring the reach of the linear Jacobians: {wildcards.dataset}"
    shell:
        "python -m spatialmae reach {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule measure_sampling:
    input:
        data=str(L.data("{dataset}")),
    output:
        jackknifed("sampling_lags"),
        str(L.table("sampling_draws", "{dataset}")),
    log:
        f"{LOGS}/sampling/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/sampling/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.sampling"),
        settings=settings("first_seed", "seeds", "groups", "patch_sizes", "n_components", "linear", "source"),
    message:
        "Measuring what noise adds to the reach: {wildcards.dataset}"
    shell:
        "python -m spatialmae sampling {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule measure_ising:
    output:
        str(L.table("ising", "ising")),
        str(L.table("ising_profile", "ising")),
    log:
        f"{LOGS}/ising.log",
    benchmark:
        f"{BENCHMARKS}/ising.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.ising"),
        settings=settings("seeds", "ising", "linear"),
    message:
        "Measuring where weights lie on Ising data"
    shell:
        "python -m spatialmae ising --config {params.config:q} > {log:q} 2>&1"


rule measure_hierarchy:
    output:
        str(L.table("hierarchy_theorem", "hierarchy")),
        str(L.table("hierarchy_levels", "hierarchy")),
    log:
        f"{LOGS}/hierarchy.log",
    benchmark:
        f"{BENCHMARKS}/hierarchy.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.hierarchy"),
        settings=settings("seeds", "hierarchy"),
    message:
        "Checking the theory of latent hierarchies"
    shell:
        "python -m spatialmae hierarchy --config {params.config:q} > {log:q} 2>&1"


rule measure_identifiability:
    output:
        str(L.table("identifiability", "hierarchy")),
    log:
        f"{LOGS}/identifiability.log",
    benchmark:
        f"{BENCHMARKS}/identifiability.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.identifiability"),
        settings=settings("first_seed", "identifiability"),
    message:
        "Identifying known latents by masked prediction"
    shell:
        "python -m spatialmae identifiability --config {params.config:q} > {log:q} 2>&1"


rule analysis:
    input:
        expand(str(L.table("statistics", "{dataset}")), dataset=having("statistics")),
        expand(str(L.table("features", "{dataset}")), dataset=having("features")),
        expand(str(L.table("reach", "{dataset}")), dataset=having("reach")),
        expand(str(L.table("sampling_lags", "{dataset}")), dataset=having("sampling")),
        rules.measure_ising.output if CONFIG.ising else [],
        rules.measure_hierarchy.output if CONFIG.hierarchy else [],
        rules.measure_identifiability.output if CONFIG.identifiability else [],
