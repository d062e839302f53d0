# Figure notebooks, executed by papermill: they only read tables and artifacts, and draw.
# One rule a notebook, since each writes figures of its own names.
for notebook in dict.fromkeys(figure.kind.notebook for figure in drawn_figures(OF_SHOWN)):

    rule:
        name:
            f"draw_{notebook}"
        input:
            notebook_inputs(OF_REQUESTED, L, notebook),
            notebook=in_repository(f"notebooks/{notebook}.ipynb"),
        output:
            [str(L.figures / f"{figure.stem}.png") for figure in drawn_figures(OF_SHOWN, notebook)],
            [
                report(
                    str(L.figures / f"{figure.stem}.svg"),
                    caption=f"../report/{notebook}.rst",
                    category=CATEGORIES[figure.kind.papers],
                    subcategory=figure.kind.section,
                    labels={"figure": figure.kind.name, "of": figure.subject or "all"},
                )
                for figure in drawn_figures(OF_SHOWN, notebook)
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
            config=RESOLVED,
            code=code_of_notebook(notebook),
            subjects=figure_subjects(OF_SHOWN, notebook),
        message:
            f"Drawing figures: {notebook}"
        shell:
            "python -m spatialmae notebook {input.notebook:q} --config {params.config:q} --log {log.notebook:q} > {log.text:q} 2>&1"


rule figures:
    input:
        [str(L.figures / f"{figure.stem}.svg") for figure in drawn_figures(OF_SHOWN)],
