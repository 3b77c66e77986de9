"""Load the model of a finished run, attack an image of its own, and see whether the answer changes.

python examples/use_a_model.py runs/quickstart digits
"""

import sys

import torch

import autolora
from autolora import PGD, ThreatModel
from autolora.data import load_splits

if __name__ == "__main__":
    run, data = sys.argv[1:3]
    model = autolora.load(run)
    _, height, _ = model.architecture.input_size
    images = load_splits(data, image_size=height, progress=False).test
    x, y = images[0]
    x, y = x.unsqueeze(0), torch.tensor([y])
    attack = PGD(ThreatModel("8/255"), steps=20, restarts=3)
    x_adv = attack(model, x, y)
    with torch.no_grad():
        natural, adversarial = model(x).softmax(dim=1)[0], model(x_adv).softmax(dim=1)[0]
    print(f"label {int(y)}; largest change of a pixel {float((x_adv - x).abs().max()) * 255:.0f}/255")
    print(f"natural     {int(natural.argmax())} with probability {float(natural.max()):.2f}")
    print(f"adversarial {int(adversarial.argmax())} with probability {float(adversarial.max()):.2f}")
