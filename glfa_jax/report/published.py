"""The numbers of the paper, to be shown beside one's own.

Enhancing Cross-Subject fMRI-to-Video Decoding with Global-Local Functional Alignment, ECCV 2024,
supplement, Table 2: trained on subjects 1 and 2, decoded subject 3 of Wen et al. (2018).
"""

SENTENCE = (
    "Published numbers, for orientation: not measured here, and of another data set than the runs "
    "above (Wen et al. 2018 as the paper prepared it, trained on subjects 1 and 2, decoded 3). "
    "What follows ± is not defined there; for n-way accuracy it is too little to be, as above, the "
    "standard deviation over clips. Source: Enhancing Cross-Subject fMRI-to-Video Decoding with "
    "Global-Local Functional Alignment, ECCV 2024, supplement, Table 2."
)
METRICS = ("video 2-way", "video 50-way", "frame 2-way", "frame 50-way", "SSIM")


# A line a method: what it was tested against, and of each of METRICS the mean and what is printed
# after its ±, which the paper does not define.
TABLE_2 = {
    "LEA": ("–", "0.811 ± 0.03, 0.136 ± 0.01, 0.750 ± 0.03, 0.108 ± 0.01, 0.139 ± 0.06"),
    "fMRI-PTE-V": ("LEA", "0.834 ± 0.03, 0.182 ± 0.01, 0.765 ± 0.03, 0.107 ± 0.01, 0.161 ± 0.07"),
    "GLFA": ("fMRI-PTE-V", "0.847 ± 0.03, 0.193 ± 0.02, 0.777 ± 0.03, 0.116 ± 0.01, 0.172 ± 0.08"),
    "GLFA without pretraining": (
        "GLFA",
        "0.848 ± 0.03, 0.173 ± 0.01, 0.748 ± 0.03, 0.096 ± 0.01, 0.137 ± 0.05",
    ),
    "GLFA without stage 1": (
        "GLFA",
        "0.846 ± 0.03, 0.169 ± 0.02, 0.753 ± 0.03, 0.096 ± 0.01, 0.153 ± 0.05",
    ),
}
