"""Rehearse from a condensed memory in a loop of one's own: digits in five steps, one network all along."""

import torch

from clreplay import ConvNet, ReplayBuffer
from clreplay.data import load_digits

torch.manual_seed(0)
data, network = load_digits(), ConvNet(10, channels=1, image_size=32, width=16)
optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
buffer = ReplayBuffer("dm", images_per_class=5, preset="smoke", normalization=data.normalization, dataset="digits")
for step in range(5):
    part = data.train.of_classes([2 * step, 2 * step + 1])
    for rows in [rows for epoch in range(3) for rows in torch.randperm(len(part.labels)).split(16)]:
        images, labels = data.normalization.apply(part.images[rows]), part.labels[rows]
        buffer.observe(part.images[rows], labels)
        if not buffer.is_empty():
            images, labels = map(torch.cat, zip((images, labels), buffer.sample(16)))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    buffer.consolidate()
accuracy = (
    100 * (network.eval()(data.normalization.apply(data.test.images)).argmax(1) == data.test.labels).float().mean()
)
print(f"{buffer}: {accuracy:.1f} % of all ten digits")
