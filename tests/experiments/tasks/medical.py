"""NIfTI and DICOM files of a volume whose intensities are a linear function of the position."""

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

GRADIENT = np.array([3.0, -2.0, 5.0])  # of the intensity, per millimetre right, anterior, superior


def at(positions):
    """The intensity at positions (..., 3) in millimetres."""
    return positions @ GRADIENT + 40


def linear_volume(shape, affine):
    """Intensities (x, y, z) of voxels at the affine's positions."""
    voxels = np.moveaxis(np.indices(shape), 0, -1)
    return at(voxels @ affine[:3, :3].T + affine[:3, 3])


def write_dicom(path, pixels, position, across, down, spacing, thickness=2.0, series="1.2.3", **more):
    """One slice; pixels int16 (row, column), position and directions in DICOM's (left, posterior, superior)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality = series, "CT"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.ImagePositionPatient = [float(x) for x in position]
    data.ImageOrientationPatient = [float(x) for x in (*across, *down)]
    data.PixelSpacing, data.SliceThickness = list(spacing), thickness
    data.PixelData = pixels.astype("<i2").tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
