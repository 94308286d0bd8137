"""Train Readout Head: the published network, or a smaller one, by gradient descent."""
from dataclasses import replace

from comfy_api.latest import io

from ...rg_core.training.recipes import RECIPES, SMALL
from ..common import model_checks
from ..common.types import CATEGORY, Head, LossMap
from . import reports
from .examples import example_inputs, examples, kind_given
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
            description="Trains a readout head for this model by gradient descent on many images. It takes minutes to hours, so try Fit Readout "
                        "Head first.",
            inputs=[*example_inputs(),
                    io.Combo.Input("preset", options=list(RECIPES), default=SMALL.name,
                                   tooltip="small: for a few hundred images. published: the network and recipe of the method's authors, for "
                                   "thousands of images."),
                    io.Int.Input("steps", default=0, min=0, max=1_000_000,
                                 tooltip="The total number of steps, including those before an interruption. 0 uses the preset: "
                                 f"{' or '.join(f'{r.steps} ({r.name})' for r in RECIPES.values())}."),
                    io.Int.Input("batch_size", default=0, min=0, max=1024, advanced=True,
                                 tooltip="The number of images per step. 0 uses the preset: "
                                 f"{' or '.join(f'{r.batch_size} ({r.name})' for r in RECIPES.values())}."),
                    io.Float.Input("learning_rate", default=0.0, min=0.0, max=1.0, step=1e-7, advanced=True,
                                   tooltip=f"The learning rate of the training. 0 uses the preset: {SMALL.learning_rate:g}."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff,
                                 tooltip="The seed of the initial network and of the noise. It also chooses the images that are held out to evaluate "
                                 "the head."),
                    io.String.Input("filename_prefix", default=f"{FOLDER}/trained",
                                    tooltip="Where the head and its training state are saved, in ComfyUI's output folder: every five minutes, at the "
                                    "end, and when you interrupt the run."),
                    io.Boolean.Input("resume", default=False, tooltip="Whether to continue from the newest file of that name, if there is one.")],
            outputs=[Head.Output(display_name="head", tooltip="The trained head, for targets, Readout Estimate or Save Readout Head."),
                     LossMap.Output(display_name="loss", tooltip="The loss of each step, for Plot Loss Graph."),
                     io.String.Output(display_name="report", tooltip="Whether the head is fit for use, and how well it reads at each noise level. "
                                      "Connect it to Preview as Text to keep it in view."),
                     io.Image.Output(display_name="held out", tooltip="Held-out images: the image, what the head should read, and what it reads "
                                     "from the noisiest level to the cleanest.")],
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
        report = reports.on_the_node(cls, reports.report(NODE, head, found, made, training.data.given))
        return io.NodeOutput(head, {"loss": training.curve}, report, reports.sheet(model, head, found))
