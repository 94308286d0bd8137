"""Stands in for the pack's Drag Target: the inputs that the editor is made for, and the answer that it shows."""
from comfy_api.latest import ComfyExtension, io, ui


class DragTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="ReadoutDragTarget", display_name="Drag Target", category="readout guidance", is_output_node=True,
                         inputs=[io.Image.Input("image", optional=True), io.Custom("READOUT_DRAGS").Input("drags")],
                         outputs=[io.String.Output()])

    @classmethod
    def execute(cls, drags, image=None):
        saved = [] if image is None else ui.PreviewImage(image[:1], cls=cls).as_dict()["images"]
        return io.NodeOutput(drags, ui={"readout_picture": saved})


class Stub(ComfyExtension):
    async def get_node_list(self):
        return [DragTarget]


async def comfy_entrypoint():
    return Stub()
