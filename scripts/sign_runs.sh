#!/usr/bin/env bash
# Good and bad adaptations, and the table of their label-free signs beside their true scores.
#
#   bash scripts/sign_runs.sh CAMVID OUTPUT
#
# CAMVID: the SegNet tutorial's folder, see docs/camvid.md. OUTPUT: where data and runs go. It takes
# about five hours on two CPU cores; the same command goes on where it was stopped.
set -euo pipefail

if [ $# -ne 2 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
camvid=$1 output=$2
python=${PYTHON:-python}
data=$output/data

train() { # NAME RECIPE SEEDS FLAGS…
    local name=$1 recipe=$2 seeds=$3
    shift 3
    "$python" -m dasac_jax.main --config "$recipe" --workdir "$output/$name" --seeds "$seeds" "$@"
}

"$python" scripts/prepare_data.py camvid "$camvid" --root "$data"
lists=(--config.data.root="$data/camvid" --config.data.lists="$data/camvid")
dusk=(configs/camvid_dusk.py 0,1)

train good_camvid configs/camvid_dusk.py 0,1,2,3,4 "${lists[@]}"
train good_demo configs/demo.py 0,1,2,3,4

# A rate five times as high (with ten times the loss is not finite any more, and the run ends), and
# labels of which two classes are mixed up.
train bad_rate "${dusk[@]}" "${lists[@]}" --config.adapt.learning_rate=1e-3
train bad_labels "${dusk[@]}" "${lists[@]}" --config.data.classes.source_ids="(0,'sky'),\
(1,'tree'),(2,'pole'),(3,'road'),(4,'pavement'),(5,'building'),(6,'sign'),(7,'fence'),(8,'car'),\
(9,'pedestrian'),(10,'bicyclist')"

# The other way round: from 62 frames at dusk to those by day.
images=$data/camvid/images labels=$data/camvid/labels
[ -f "$data/day/mine.py" ] || "$python" scripts/prepare_data.py own --classes camvid11 --output "$data/day" \
    --source-images "$images/0001TP_*" --source-labels "$labels/0001TP_*" \
    --target-images "$images/00[01]6*" "$images/Seq05VD*" \
    --target-labels "$labels/00[01]6*" "$labels/Seq05VD*"
train camvid_day "$data/day/mine.py" 0,1

# From rendered scenes to photographs, by the classes that both have.
cat > "$data/rendered.txt" <<'TABLE'
sky 10
building 2
building 3
pole 5
road 0
pavement 1
tree 8
tree 9
sign 6
sign 7
fence 4
car 13
car 14
car 15
car 16
pedestrian 11
bicyclist 12
bicyclist 17
bicyclist 18
ignored 255
TABLE
rendered=$output/good_demo/seed0/data/game
[ -f "$data/rendered/mine.py" ] || "$python" scripts/prepare_data.py own --output "$data/rendered" \
    --classes "$data/rendered.txt" --target-classes camvid11 \
    --source-images "$rendered/images" --source-labels "$rendered/labels_cs" \
    --target-images "$images" --target-labels "$labels"
train rendered_camvid "$data/rendered/mine.py" 0,1

"$python" scripts/signs.py \
    "$output"/{good_camvid,good_demo,bad_rate,bad_labels,camvid_day,rendered_camvid}
