# Figure notebooks, executed by papermill: they only read tables and artifacts, and draw.
# One rule a notebook, since each writes figures of its own names.
for notebook in dict.fromkeys(figure.kind.notebook for figure in drawn_figures(CONFIG)):

    rule:
        name:
            f"draw_{notebook}"
        input:
            notebook_inputs(CONFIG, L, notebook),
            config=ancient(str(L.config)),
            notebook=f"notebooks/{notebook}.ipynb",
            code=code_of_notebook(f"notebooks/{notebook}.ipynb") + code("spatialmae.stages.figures"),
        output:
            [str(L.figures / f"{figure.stem}.png") for figure in drawn_figures(CONFIG, notebook)],
            [
                report(
                    str(L.figures / f"{figure.stem}.svg"),
                    caption=f"../report/{notebook}.rst",
                    category=CATEGORIES[figure.kind.papers],
                    subcategory=figure.kind.section,
                    labels={"figure": figure.kind.name, "of": figure.subject or "all"},
                )
                for figure in drawn_figures(CONFIG, notebook)
            ],
            notebook=str(L.notebook(notebook, "ipynb")),
            html=str(L.notebook(notebook, "html")),
        log:
            notebook=f"{LOGS}/notebooks/{notebook}.ipynb",
            text=f"{LOGS}/notebooks/{notebook}.log",
        benchmark:
            f"{BENCHMARKS}/notebooks/{notebook}.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        params:
            subjects=figure_subjects(CONFIG, notebook),
        message:
            f"Drawing figures: {notebook}"
        shell:
            "python -m spatialmae notebook {input.notebook} --config {input.config} --log {log.notebook} > {log.text} 2>&1"


rule figures:
    input:
        [str(L.figures / f"{figure.stem}.svg") for figure in drawn_figures(CONFIG)],
