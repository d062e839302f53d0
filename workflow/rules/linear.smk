# Linear theory: closed forms over the whole grid, and the checks of the closed form itself.
SOLVED = having("features", "reach", "probe_gabor", "probe_depth", "probe_class")
CHECKED = CONFIG.checks.dataset if CONFIG.checks else "nothing"  # then no target asks for the rule


rule solve_linear:
    input:
        data=str(L.data("{dataset}")),
    output:
        solutions=directory(str(L.linear("{dataset}"))),
        whole=str(L.table("linear_sweep_all", "{dataset}")),
        sweep=report(
            str(L.table("linear_sweep", "{dataset}")),
            caption="../report/sweep_table.rst",
            category=CATEGORIES["A"],
            subcategory="Tables",
            labels={"figure": "table: sweep", "of": "{dataset}"},
        ),
    log:
        f"{LOGS}/linear/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/linear/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.linear"),
        settings=settings("first_seed", "groups", "patch_sizes", "n_components", "linear"),
    message:
        "Solving the linear autoencoders: {wildcards.dataset}"
    shell:
        "python -m spatialmae linear {wildcards.dataset} --config {params.config:q} > {log:q} 2>&1"


rule check_closed_form:
    input:
        data=str(L.data(CHECKED)),
    output:
        report(
            str(L.table("checks", CHECKED)),
            caption="../report/theory_table.rst",
            category=CATEGORIES["A"],
            subcategory="Tables",
            labels={"figure": "table: theory", "of": CHECKED},
        ),
    log:
        f"{LOGS}/checks.log",
    benchmark:
        f"{BENCHMARKS}/checks.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.checks"),
        settings=settings("first_seed", "groups", "checks", dataset=CHECKED),
    message:
        "Checking the closed form against gradient descent, PCA and random masks"
    shell:
        "python -m spatialmae checks --config {params.config:q} > {log:q} 2>&1"


rule linear:
    input:
        expand(str(L.table("linear_sweep", "{dataset}")), dataset=SOLVED),
        rules.check_closed_form.output if CONFIG.checks else [],
