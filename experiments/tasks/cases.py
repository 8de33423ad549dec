"""The restorations that `rank` compares methods by: command lines, less what is common to all."""

# The noise is written out, since methods that make nothing of it would have none by default.
CASES = {
    "denoise": "restore --task=denoise --noise=0.3",
    "inpaint-box": "restore --task=inpaint --mask=box --noise=0.05",
    "inpaint-random": "restore --task=inpaint --mask=random --share=0.3 --noise=0.05",
    "superres": "restore --task=superres --factor=4 --noise=0.05",
    "deblur": "restore --task=deblur --kernel=gaussian --noise=0.05",
    "deblur-motion": "restore --task=deblur --kernel=motion --noise=0.05",
    "deblur-light": "restore --task=deblur-light --kernel=motion --noise=0.05",
    "colorize": "restore --task=colorize --noise=0.05",
    "sensing": "restore --task=sensing --share=0.25 --noise=0.05",
    "dejpeg": "restore --task=dejpeg --quality=10 --noise=0.02",
    "hdr": "restore --task=hdr --noise=0.05",
    "phase": "restore --task=phase --noise=0.05",
    "mri": "reconstruct --modality=mri --mask=random_lines --acceleration=4 --noise=0.02",
    "mri-coils": "reconstruct --modality=mri --mask=radial --acceleration=6 --coils=4 --noise=0.02",
    "ct": "reconstruct --modality=ct --angles=20 --noise=0.02",
    "ct-limited": "reconstruct --modality=ct --angles=40 --arc=90 --noise=0.02",
}
