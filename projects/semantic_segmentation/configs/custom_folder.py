"""UPerNet, Iwin-T, on your own images and label images.

The paths are the only overrides needed; class names and every num_classes follow from the text
file, which has a name a line:

    tools/lazyconfig_train_net.py
        --config-file projects/semantic_segmentation/configs/custom_folder.py
        dataset.train_images=FOLDER dataset.train_labels=FOLDER
        dataset.test_images=FOLDER dataset.test_labels=FOLDER dataset.classes=FILE

dataset.reduce_zero_label=True where 0 in the label images means "no class" and 1 is the first one,
as in ADE20K; dataset.ignore_value=N where another value than 255 is to be ignored.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.semantic_segmentation import num_classes

from ....configs.common.custom_folder import dataloader, dataset, lr_multiplier, optimizer, train
from ....configs.common.models.upernet_iwin import model

model.sem_seg_head.num_classes = L(num_classes)(
    classes="${dataset.classes}", count="${dataset.num_classes}"
)
train.output_dir = "./output/upernet_custom_folder"
