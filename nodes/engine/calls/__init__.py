"""How the model is asked: conditionings, ControlNets, what inpainting models are shown, branches together or apart."""
