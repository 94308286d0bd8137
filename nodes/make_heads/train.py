"""Train Readout Head: the published network, or a smaller one, by gradient descent."""
from dataclasses import replace

from comfy_api.latest import io

from ...rg_core.training.recipes import RECIPES, SMALL
from ..common import model_checks
from ..common.types import CATEGORY, Head, LossMap
from . import reports
from .examples import examples, kind_given
from .load_save import FOLDER, save_paths
from .training import Training, trained
from .training_set import TrainingSet

NODE = "Train Readout Head"


class TrainReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrainReadoutHead", display_name=NODE, category=CATEGORY, is_input_list=True, is_output_node=True,
            search_aliases=["train", "probe"],
            description="Trains a readout head for this model by gradient descent, from many pictures: minutes to hours. Try Fit Readout Head "
                        "first.",
            inputs=[io.Model.Input("model"),
                    io.Latent.Input("latents", tooltip="The pictures: a batch, or a list. The model may have sampled them itself."),
                    io.Conditioning.Input("positive", tooltip="What the pictures show: one for all, such as an empty prompt, or a list."),
                    io.Image.Input("image", tooltip="What the head should read of each picture, in the same order: a batch or a list, of any size."),
                    io.String.Input("kind", default="depth", tooltip="What that is: pose, depth, edge, or a name of your own for Map Target."),
                    io.Combo.Input("preset", options=list(RECIPES), default=SMALL.name,
                                   tooltip="small: for some hundred pictures. published: the network and the recipe of the method's authors, for "
                                           "thousands."),
                    io.Int.Input("steps", default=0, min=0, max=1_000_000,
                                 tooltip="In all, those before an interruption included. 0: as the preset says, "
                                         f"{' or '.join(f'{r.steps} ({r.name})' for r in RECIPES.values())}."),
                    io.Int.Input("batch_size", default=0, min=0, max=1024, advanced=True,
                                 tooltip="Pictures in a step. 0: as the preset says, "
                                         f"{' or '.join(f'{r.batch_size} ({r.name})' for r in RECIPES.values())}."),
                    io.Float.Input("learning_rate", default=0.0, min=0.0, max=1.0, step=1e-7, advanced=True,
                                   tooltip=f"0: as the preset says, {SMALL.learning_rate:g}."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff,
                                 tooltip="Of the network, the noise, and of which pictures are held out to judge the head by."),
                    io.String.Input("filename_prefix", default=f"{FOLDER}/trained",
                                    tooltip="Where the head and the state of its training are kept, under ComfyUI's output folder: every five "
                                            "minutes, at the end and when it is interrupted."),
                    io.Boolean.Input("resume", default=False, tooltip="Go on with the newest file of that name, if there is one.")],
            outputs=[Head.Output(display_name="head"), LossMap.Output(display_name="loss"), io.String.Output(display_name="report"),
                     io.Image.Output(display_name="held out")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, model, latents, positive, image, kind, preset, steps, batch_size, learning_rate, seed, filename_prefix, resume):
        model, kind, recipe = model[0], kind_given(NODE, kind[0]), RECIPES[preset[0]]
        asked = {"steps": steps[0], "batch_size": batch_size[0], "learning_rate": learning_rate[0]}
        recipe = replace(recipe, **{name: value for name, value in asked.items() if value})
        model_checks.heads_fit(NODE, model, [])
        following, last = save_paths(NODE, filename_prefix[0])
        going_on = resume[0] and last is not None
        training = Training(TrainingSet(NODE, model, examples(NODE, model, latents, positive, image, kind), kind), recipe, seed[0])
        head, found, made = trained(training, last if going_on else following, going_on)
        report = reports.on_the_node(cls, reports.report(NODE, head, found, made, training.material.given))
        return io.NodeOutput(head, {"loss": training.curve}, report, reports.sheet(model, head, found))
