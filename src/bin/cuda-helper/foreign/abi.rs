//! Names and types of the foreign functions, as far as they are called.
//!
//! Sources: cuda.h, cuda_runtime_api.h, nvrtc.h and nvml.h of CUDA 12.4, cudnn_graph.h of cuDNN 9.1. All of these have kept
//! their types since CUDA 11 and cuDNN 7; what is newer says since when it is there. C enumerations are passed as `int` or `unsigned int`, which are the same to a caller.
//! What is promised by `unsafe impl` is that this file copies the headers right.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};

use cuda_entrypoint::facts::forward::BRANDS;

use super::Function;

macro_rules! functions {
    ($($type:ident = $name:literal ($($argument:ty),*) $(-> $result:ty)?;)*) => {$(
        #[doc = stringify!($name)]
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $type(pub unsafe extern "C" fn($($argument),*) -> functions!(@ $($result)?));
        // SAFETY: the declaration is that of the vendor's header.
        unsafe impl Function for $type {
            const NAME: &'static CStr = $name;
        }
    )*};
    (@) => { c_int };
    (@ $result:ty) => { $result };
}

functions! {
    CudaRuntimeGetVersion = c"cudaRuntimeGetVersion" (*mut c_int);
    CudaGetErrorName = c"cudaGetErrorName" (c_int) -> *const c_char;
    CudaGetErrorString = c"cudaGetErrorString" (c_int) -> *const c_char;
}

functions! {
    NvrtcVersion = c"nvrtcVersion" (*mut c_int, *mut c_int);
    NvrtcGetErrorString = c"nvrtcGetErrorString" (c_int) -> *const c_char;
    NvrtcGetNumSupportedArchs = c"nvrtcGetNumSupportedArchs" (*mut c_int);
    NvrtcGetSupportedArchs = c"nvrtcGetSupportedArchs" (*mut c_int);
}

functions! {
    CudnnGetVersion = c"cudnnGetVersion" () -> usize;
}

/// `CUdevice`
pub type CuDevice = c_int;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_MODE`
pub const COMPUTE_MODE: c_int = 20;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`
pub const CAPABILITY_MAJOR: c_int = 75;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR`
pub const CAPABILITY_MINOR: c_int = 76;

functions! {
    CuDriverGetVersion = c"cuDriverGetVersion" (*mut c_int);
    CuInit = c"cuInit" (c_uint);
    CuGetErrorName = c"cuGetErrorName" (c_int, *mut *const c_char);
    CuGetErrorString = c"cuGetErrorString" (c_int, *mut *const c_char);
    CuDeviceGetCount = c"cuDeviceGetCount" (*mut c_int);
    CuDeviceGet = c"cuDeviceGet" (*mut CuDevice, c_int);
    CuDeviceGetName = c"cuDeviceGetName" (*mut c_char, c_int, CuDevice);
    CuDeviceGetUuid = c"cuDeviceGetUuid" (*mut [u8; 16], CuDevice);
    CuDeviceGetUuidV2 = c"cuDeviceGetUuid_v2" (*mut [u8; 16], CuDevice);
    CuDeviceGetAttribute = c"cuDeviceGetAttribute" (*mut c_int, c_int, CuDevice);
    CuDeviceTotalMem = c"cuDeviceTotalMem_v2" (*mut usize, CuDevice);
    CuDeviceGetPciBusId = c"cuDeviceGetPCIBusId" (*mut c_char, c_int, CuDevice);
}

/// `CUcontext`, `CUmodule`, `CUfunction`, `CUstream` or `CUevent`
pub type CuHandle = *mut c_void;
/// `CUdeviceptr`
pub type CuAddress = c_ulonglong;

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`
pub const MAX_THREADS_PER_BLOCK: c_int = 0;
/// `CU_STREAM_NON_BLOCKING`
pub const STREAM_NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`
pub const EVENT_DISABLE_TIMING: c_uint = 2;

functions! {
    CuPrimaryCtxRetain = c"cuDevicePrimaryCtxRetain" (*mut CuHandle, CuDevice);
    CuPrimaryCtxRelease = c"cuDevicePrimaryCtxRelease_v2" (CuDevice);
    CuCtxSetCurrent = c"cuCtxSetCurrent" (CuHandle);
    CuMemAlloc = c"cuMemAlloc_v2" (*mut CuAddress, usize);
    CuMemFree = c"cuMemFree_v2" (CuAddress);
    CuMemcpyHtoDAsync = c"cuMemcpyHtoDAsync_v2" (CuAddress, *const c_void, usize, CuHandle);
    CuMemcpyDtoHAsync = c"cuMemcpyDtoHAsync_v2" (*mut c_void, CuAddress, usize, CuHandle);
    CuStreamCreate = c"cuStreamCreate" (*mut CuHandle, c_uint);
    CuStreamSynchronize = c"cuStreamSynchronize" (CuHandle);
    CuStreamWaitEvent = c"cuStreamWaitEvent" (CuHandle, CuHandle, c_uint);
    CuEventCreate = c"cuEventCreate" (*mut CuHandle, c_uint);
    CuEventRecord = c"cuEventRecord" (CuHandle, CuHandle);
    CuModuleLoadData = c"cuModuleLoadData" (*mut CuHandle, *const c_void);
    CuModuleUnload = c"cuModuleUnload" (CuHandle);
    CuModuleGetFunction = c"cuModuleGetFunction" (*mut CuHandle, CuHandle, *const c_char);
    CuModuleGetFunctionCount = c"cuModuleGetFunctionCount" (*mut c_uint, CuHandle); // since CUDA 12.4
    CuModuleEnumerateFunctions = c"cuModuleEnumerateFunctions" (*mut CuHandle, c_uint, CuHandle); // likewise
    CuFuncLoad = c"cuFuncLoad" (CuHandle); // likewise
    CuFuncGetAttribute = c"cuFuncGetAttribute" (*mut c_int, c_int, CuHandle);
    CuLaunchKernel = c"cuLaunchKernel" (
        CuHandle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CuHandle, *mut *mut c_void, *mut *mut c_void
    );
}

/// `nvmlDevice_t`
pub type NvmlHandle = *mut c_void;

/// `NVML_ERROR_NOT_SUPPORTED`
pub const NVML_NOT_SUPPORTED: c_int = 3;
/// `NVML_ERROR_NOT_FOUND`
pub const NVML_NOT_FOUND: c_int = 6;
/// `NVML_ERROR_FUNCTION_NOT_FOUND`
pub const NVML_FUNCTION_NOT_FOUND: c_int = 13;
/// `NVML_DEVICE_MIG_ENABLE`
pub const MIG_ENABLED: c_uint = 1;
/// `NVML_MEMORY_ERROR_TYPE_UNCORRECTED`
pub const ECC_UNCORRECTED: c_uint = 1;
/// `NVML_VOLATILE_ECC`: since the driver was loaded
pub const ECC_VOLATILE: c_uint = 0;

/// `nvmlMemory_t`, in bytes
#[repr(C)]
#[derive(Default)]
pub struct NvmlMemory {
    /// installed
    pub total: c_ulonglong,
    /// held by nobody, and not reserved by the driver
    pub free: c_ulonglong,
    _used: c_ulonglong,
}

/// `NVML_VALUE_NOT_AVAILABLE` in a field of this type
pub const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

/// `nvmlProcessInfo_t` (`nvmlProcessInfo_v2_t`), as nvmlDeviceGetComputeRunningProcesses_v3 fills it
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct NvmlProcessInfo {
    /// process ID
    pub pid: c_uint,
    /// bytes, or [`NOT_AVAILABLE`]
    pub used: c_ulonglong,
    _gpu_instance: c_uint,
    _compute_instance: c_uint,
}

/// `nvmlPciInfo_t` as nvmlDeviceGetPciInfo_v3 fills it
#[repr(C)]
#[derive(Default)]
pub struct NvmlPciInfo {
    _bus_id_legacy: [u8; 16],
    _domain_to_subsystem: [c_uint; 5],
    /// `00000000:3B:00.0`, NUL-terminated
    pub bus_id: [u8; 32],
}

/// `NVML_ERROR_GPU_IS_LOST`
pub const NVML_GPU_IS_LOST: c_int = 15;
/// `NVML_ERROR_RESET_REQUIRED`
pub const NVML_RESET_REQUIRED: c_int = 16;
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, since CUDA 12.8 (nvml.h of 12.8 to 13.3)
pub const RECOVERY_ACTION: c_uint = 230;

/// `nvmlFieldValue_t`
#[repr(C)]
#[derive(Default)]
pub struct NvmlFieldValue {
    field: c_uint,
    _scope: c_uint,
    _timestamp: c_longlong,
    _latency: c_longlong,
    _kind: c_int,
    /// `nvmlReturn_t` of this field
    pub result: c_int,
    /// an `nvmlValue_t`: the first bytes of a union of eight
    pub value: c_uint,
    _rest: c_uint,
}
const _: () = assert!(size_of::<NvmlFieldValue>() == 40);

impl NvmlFieldValue {
    /// A field to be asked for.
    pub fn of(field: c_uint) -> Self {
        Self {
            field,
            ..Self::default()
        }
    }
}

/// `nvmlGpuFabricInfo_v2_t`, which nvmlDeviceGetGpuFabricInfoV fills since CUDA 12.4
#[repr(C)]
pub struct NvmlFabricInfo {
    version: c_uint,
    _cluster: [u8; 16],
    /// `nvmlReturn_t` of the registration, once it is complete
    pub status: c_int,
    _clique: c_uint,
    /// `NVML_GPU_FABRIC_STATE_*`
    pub state: u8,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`
    pub health: c_uint,
}
const _: () = assert!(size_of::<NvmlFabricInfo>() == 36);

impl Default for NvmlFabricInfo {
    fn default() -> Self {
        Self {
            // `NVML_STRUCT_VERSION(GpuFabricInfo, 2)`
            version: 36 | 2 << 24,
            _cluster: [0; 16],
            status: 0,
            _clique: 0,
            state: FABRIC_NOT_SUPPORTED,
            health: 0,
        }
    }
}
/// `NVML_GPU_FABRIC_STATE_NOT_SUPPORTED`
pub const FABRIC_NOT_SUPPORTED: u8 = 0;

functions! {
    NvmlInit = c"nvmlInit_v2" ();
    NvmlErrorString = c"nvmlErrorString" (c_int) -> *const c_char;
    NvmlSystemGetDriverVersion = c"nvmlSystemGetDriverVersion" (*mut c_char, c_uint);
    NvmlSystemGetCudaDriverVersion = c"nvmlSystemGetCudaDriverVersion_v2" (*mut c_int);
    NvmlDeviceGetCount = c"nvmlDeviceGetCount_v2" (*mut c_uint);
    NvmlDeviceGetHandleByIndex = c"nvmlDeviceGetHandleByIndex_v2" (c_uint, *mut NvmlHandle);
    NvmlDeviceGetName = c"nvmlDeviceGetName" (NvmlHandle, *mut c_char, c_uint);
    NvmlDeviceGetUuid = c"nvmlDeviceGetUUID" (NvmlHandle, *mut c_char, c_uint);
    NvmlDeviceGetMinorNumber = c"nvmlDeviceGetMinorNumber" (NvmlHandle, *mut c_uint);
    NvmlDeviceGetPciInfo = c"nvmlDeviceGetPciInfo_v3" (NvmlHandle, *mut NvmlPciInfo);
    NvmlDeviceGetCapability = c"nvmlDeviceGetCudaComputeCapability" (NvmlHandle, *mut c_int, *mut c_int);
    NvmlDeviceGetBrand = c"nvmlDeviceGetBrand" (NvmlHandle, *mut c_uint);
    NvmlDeviceGetMemoryInfo = c"nvmlDeviceGetMemoryInfo" (NvmlHandle, *mut NvmlMemory);
    NvmlDeviceGetComputeRunningProcesses =
        c"nvmlDeviceGetComputeRunningProcesses_v3" (NvmlHandle, *mut c_uint, *mut NvmlProcessInfo);
    NvmlDeviceGetMigMode = c"nvmlDeviceGetMigMode" (NvmlHandle, *mut c_uint, *mut c_uint);
    NvmlDeviceGetMaxMigDeviceCount = c"nvmlDeviceGetMaxMigDeviceCount" (NvmlHandle, *mut c_uint);
    NvmlDeviceGetMigDevice = c"nvmlDeviceGetMigDeviceHandleByIndex" (NvmlHandle, c_uint, *mut NvmlHandle);
    NvmlDeviceGetTotalEccErrors =
        c"nvmlDeviceGetTotalEccErrors" (NvmlHandle, c_uint, c_uint, *mut c_ulonglong);
    NvmlDeviceGetRemappedRows =
        c"nvmlDeviceGetRemappedRows" (NvmlHandle, *mut c_uint, *mut c_uint, *mut c_uint, *mut c_uint);
    NvmlDeviceGetComputeMode = c"nvmlDeviceGetComputeMode" (NvmlHandle, *mut c_uint);
    NvmlDeviceGetFieldValues = c"nvmlDeviceGetFieldValues" (NvmlHandle, c_int, *mut NvmlFieldValue);
    NvmlDeviceGetFabricInfo = c"nvmlDeviceGetGpuFabricInfoV" (NvmlHandle, *mut NvmlFabricInfo);
}

/// An `nvmlBrandType_t` as NVIDIA's images write it in NVIDIA_REQUIRE_CUDA (`brand=quadrortx`); as with
/// nvidia-container-cli, whatever has no name there is `unknown`.
pub fn nvml_brand_name(brand: c_uint) -> &'static str {
    let name = usize::try_from(brand).ok().and_then(|at| BRANDS.get(at));
    name.copied().unwrap_or("unknown")
}

/// The enumerator of an `nvmlReturn_t`, which the library itself cannot name; empty for one that nvml.h does not
/// have.
pub fn nvml_error_name(code: c_int) -> &'static str {
    match code {
        1 => "NVML_ERROR_UNINITIALIZED",
        2 => "NVML_ERROR_INVALID_ARGUMENT",
        NVML_NOT_SUPPORTED => "NVML_ERROR_NOT_SUPPORTED",
        4 => "NVML_ERROR_NO_PERMISSION",
        5 => "NVML_ERROR_ALREADY_INITIALIZED",
        NVML_NOT_FOUND => "NVML_ERROR_NOT_FOUND",
        7 => "NVML_ERROR_INSUFFICIENT_SIZE",
        8 => "NVML_ERROR_INSUFFICIENT_POWER",
        9 => "NVML_ERROR_DRIVER_NOT_LOADED",
        10 => "NVML_ERROR_TIMEOUT",
        11 => "NVML_ERROR_IRQ_ISSUE",
        12 => "NVML_ERROR_LIBRARY_NOT_FOUND",
        NVML_FUNCTION_NOT_FOUND => "NVML_ERROR_FUNCTION_NOT_FOUND",
        14 => "NVML_ERROR_CORRUPTED_INFOROM",
        NVML_GPU_IS_LOST => "NVML_ERROR_GPU_IS_LOST",
        NVML_RESET_REQUIRED => "NVML_ERROR_RESET_REQUIRED",
        17 => "NVML_ERROR_OPERATING_SYSTEM",
        18 => "NVML_ERROR_LIB_RM_VERSION_MISMATCH",
        19 => "NVML_ERROR_IN_USE",
        20 => "NVML_ERROR_MEMORY",
        21 => "NVML_ERROR_NO_DATA",
        22 => "NVML_ERROR_VGPU_ECC_NOT_SUPPORTED",
        23 => "NVML_ERROR_INSUFFICIENT_RESOURCES",
        24 => "NVML_ERROR_FREQ_NOT_SUPPORTED",
        25 => "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
        26 => "NVML_ERROR_DEPRECATED",
        27 => "NVML_ERROR_NOT_READY",
        28 => "NVML_ERROR_GPU_NOT_FOUND",
        29 => "NVML_ERROR_INVALID_STATE",
        30 => "NVML_ERROR_RESET_TYPE_NOT_SUPPORTED",
        999 => "NVML_ERROR_UNKNOWN",
        _ => "",
    }
}
