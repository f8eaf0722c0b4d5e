#!/usr/bin/env bash
# How audiosr sits in a shell; run by the tests in an empty folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# From a pipe to a pipe: WAV in, WAV out, nothing on disk.
cat "$here/narrowband.wav" | audiosr upsample - -o - | audiosr upsample - --rate 96000 -o very_wide.wav

# Another format by the name of the output.
audiosr upsample "$here/narrowband.wav" -o restored.flac

# The names that were written go to standard output, one a line.
audiosr separate "$here/two_speakers.wav" -o tracks | while read -r track; do
    wc -c < "$track"
done

# What happened, for a script: frames, rates, clipping, seconds.
audiosr separate "$here/two_speakers.wav" -o tracks --overwrite --json > report.json
grep -q '"status": "done"' report.json

# A file that cannot be read does not stop the others; 3 says that some failed.
echo "no audio" > broken.wav
status=0
audiosr upsample broken.wav "$here/narrowband.wav" -o batch 2> talk.txt || status=$?
[ "$status" -eq 3 ] && grep -q broken.wav talk.txt
