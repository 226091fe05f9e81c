"""`verbalize data append`: events that keep arriving, into a store."""

import argparse


def add(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `data append`."""
    command = actions.add_parser(
        "append",
        help="add files of events to a store; examples and candidate texts of touched users are made again",
        description="Add files of events to a store (made on first use). A file that was added before changes nothing, "
        "and one that a kill interrupted is added by the same command.",
    )
    command.add_argument("store", help="folder of the store")
    command.add_argument("files", nargs="*", metavar="FILE", help="files of events, in any order of time")
    command.add_argument(
        "--mapping", required=False, help="which columns are which, e.g. experiments/mappings/....yaml"
    )
    command.add_argument("--items", help="file of the catalogue, as the mapping describes it; only when it changed")
    command.add_argument(
        "--refresh",
        metavar="RECIPE",
        help="then freeze split times and popularity anew under this recipe's `examples`, and make everything again",
    )
    command.add_argument("--compact", action="store_true", help="then fold small files together")
    command.add_argument("--buckets", type=int, default=16, help="parts that users are spread over, for a new store")
    command.set_defaults(call=_append)


def _append(options: argparse.Namespace) -> int:
    from recsys.errors import InputError
    from recsys.logs.store import Store
    from recsys.logs.store.batches import read_batch
    from verbalize.candidate_texts import CandidateTexts
    from verbalize.recipe import load_recipe

    if options.files and not options.mapping:
        raise InputError("--mapping", "is missing", "name the mapping that describes the files")
    recipe = load_recipe(options.refresh, []) if options.refresh else None
    store = Store.create(options.store, buckets=options.buckets)
    reference = store.reference()
    store.writer = CandidateTexts.of_settings(reference.texts) if reference else None
    for place, path in enumerate(options.files):
        appended = store.append(read_batch(path, options.mapping, options.items if place == 0 else None))
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in appended.counts.items() if count)
        print(f"{path}: {counts or 'no events'}; generation {appended.generation}", flush=True)
    if recipe:
        store.writer = CandidateTexts.of_recipe(recipe)
        made = store.refresh(recipe.examples)
        split = made.examples.split
        print(f"reference {made.version}: T1 {split.train_until}, T2 {split.validate_until}; all examples made again")
    if options.compact:
        print(f"compacted: {store.compact()} files fewer")
    return 0
