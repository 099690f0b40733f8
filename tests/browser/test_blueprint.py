"""The subgraph blueprint.

Found by search, dropped on an empty canvas between Load Video and Save Video, and run on the small model.
"""

import host
from canvas import open_workflow, place_by_search, press_run

NAME = "Edit video (LIVEditor)"
SMALL = "Edit video, small model (LIVEditor)"


def test_the_blueprint_is_found_and_edits_a_video(page, base):
    (entry,) = [entry for entry in page.client.get("global_subgraphs").values() if entry["name"] == NAME]
    assert entry["info"]["node_pack"] == "custom_nodes.ComfyUI-LIVEditor"

    place_by_search(page, "edit video liveditor", NAME)
    assert page.evaluate("() => [app.graph.nodes[0].title, app.graph.nodes[0].isSubgraphNode()]") == [NAME, True]

    missing = page.evaluate("""() => { const edit = app.graph.nodes[0];
        const add = (type, values) => { const node = LiteGraph.createNode(type); app.graph.add(node);
            for (const [name, value] of Object.entries(values)) node.widgets.find(w =>
                w.name === name).value = value; return node; };
        const load = add('LoadVideo', {file: 'bikes.mp4'}), save = add('SaveVideo', {}),
            compare = add('LIVEditCompareVideos', {});
        const out = name => edit.outputs.findIndex(o => (o.label ?? o.name) === name);
        load.connect(0, edit, 'video'); edit.connect(out('edited video'), save, 'video');
        edit.connect(out('source'), compare, 'before'); edit.connect(out('edited video'), compare, 'after');
        const values = {instruction: 'turn it into a night scene', steps: 2, cfg: 1, max_frames: 9, size: 'custom',
            width: 128, height: 64, SAR: 0.25, SRR: 1};
        for (const [name, value] of Object.entries(values)) edit.widgets.find(w =>
            w.name === name || w.label === name).value = value;
        return app.graph.nodes.filter(n => n.has_errors).map(n => n.title); }""")
    assert missing == []
    outputs = press_run(page)["outputs"]
    assert host.saved_file(outputs, base).stat().st_size > 0
    clip = next(output["liveditor_compare"][0] for output in outputs.values() if "liveditor_compare" in output)
    assert (clip["frames"], clip["width"], clip["height"]) == (9, 128, 64)


def test_the_small_one_works_as_it_comes(open_page, server):
    """Without any other model, its own clip and a mask: nothing has to be set."""
    with open_page(server) as page:
        open_workflow(page, host.PACK / "subgraphs" / f"{SMALL}.json")
        page.evaluate("""() => { const edit = app.graph.nodes[0];
            const add = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; };
            const load = add('LoadVideo'), mask = add('SolidMask'), save = add('SaveVideo');
            load.widgets.find(w => w.name === 'file').value = 'bikes.mp4';
            load.connect(0, edit, 'video'); mask.connect(0, edit, 'mask');
            edit.connect(edit.outputs.findIndex(o => (o.label ?? o.name) === 'edited video'), save, 'video'); }""")
        entry = press_run(page)
        sent = {node["class_type"]: node["inputs"] for node in entry["prompt"][2].values()}
        assert sent["LoadLIVEditor"]["checkpoint"] == "liveditor_nano.safetensors"
        assert sent["EncodeSourceVideo"]["fit"] == "crop" and sent["EncodeSourceVideo"]["fps"] == "as the source"
        assert sent["LIVEditSampler"]["mask"] and sent["LIVEditSampler"]["window"] == 33
        assert sent["DecodeVideo"]["whole_video"] is False
        assert host.saved_file(entry["outputs"], server.base).stat().st_size > 0


def test_original_size_is_not_the_whole_video(page):
    open_workflow(page, host.PACK / "subgraphs" / f"{NAME}.json")
    sent = page.evaluate("""async () => { app.graph.nodes[0].widgets.find(w => w.name === 'original_size').value = true;
        return Object.values((await app.graphToPrompt()).output).find(n => n.class_type === 'DecodeVideo').inputs; }""")
    assert sent["original_size"] is True and sent["whole_video"] is False


def test_the_readout_inside_counts_what_is_set_outside(open_page, server):
    with open_page(server) as page:
        open_workflow(page, host.PACK / "subgraphs" / f"{NAME}.json")
        page.evaluate("""() => { const edit = app.graph.nodes[0], load = LiteGraph.createNode('LoadVideo');
            app.graph.add(load); load.connect(0, edit, 'video');
            load.widgets.find(w => w.name === 'file').value = 'bikes.mp4';
            for (const [name, value] of Object.entries({max_frames: 33, SAR: 0.125}))
                edit.widgets.find(w => w.name === name || w.label === name).value = value;
            app.canvas.setGraph(edit.subgraph); app.canvas.ds.scale = 1;
            app.canvas.centerOnNode(edit.subgraph.nodes.find(n => n.type === 'SparseAttentionSettings')); }""")
        page.wait_for_function(
            "() => document.querySelector('.liveditor-budget')?.textContent.includes('1088x464, 33 frames')",
            timeout=30_000,
        )
        assert page.locator(".liveditor-budget").text_content().startswith("32.0 %"), "SAR counts: released are 30.3 %"
