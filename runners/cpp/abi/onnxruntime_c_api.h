// What this runner calls of ONNX Runtime's C interface, for builds where only the library is at hand, as in the packages
// for Python and Node. All of it is in the first version of the interface's table, which later ones only append to: its
// 102 functions are in the same places in every release. A release's own header of this name does as well.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 17  // what the library is asked for: 1.17 or newer

#ifdef _WIN32
#define ONNXSURGEON_ORT_CALL __stdcall
#else
#define ONNXSURGEON_ORT_CALL
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef enum { ORT_LOGGING_LEVEL_ERROR = 3 } OrtLoggingLevel;
typedef enum { OrtArenaAllocator = 1 } OrtAllocatorType;
typedef enum { OrtMemTypeDefault = 0 } OrtMemType;
typedef enum {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 = 6,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE = 11,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_LAST = 0x7fff  // others are known to the library
} ONNXTensorElementDataType;

// A function of the table that returns what went wrong, or nothing; and those that are not called here.
#define ONNXSURGEON_ORT(name, ...) OrtStatus*(ONNXSURGEON_ORT_CALL* name)(__VA_ARGS__)
#define ONNXSURGEON_ORT_RELEASE(type) void(ONNXSURGEON_ORT_CALL* Release##type)(Ort##type*)
#define ONNXSURGEON_ORT_SKIP(first, last) void* unused_##first[last - first + 1]

typedef struct OrtApi {
  ONNXSURGEON_ORT_SKIP(0, 1);
  const char*(ONNXSURGEON_ORT_CALL* GetErrorMessage)(const OrtStatus*);
  ONNXSURGEON_ORT(CreateEnv, OrtLoggingLevel, const char* name, OrtEnv**);
  ONNXSURGEON_ORT_SKIP(4, 7);
  ONNXSURGEON_ORT(CreateSessionFromArray, const OrtEnv*, const void* model, size_t size, const OrtSessionOptions*, OrtSession**);
  ONNXSURGEON_ORT(Run, OrtSession*, const OrtRunOptions*, const char* const* inputs, const OrtValue* const* given, size_t, const char* const* outputs, size_t, OrtValue** found);
  ONNXSURGEON_ORT(CreateSessionOptions, OrtSessionOptions**);
  ONNXSURGEON_ORT_SKIP(11, 23);
  ONNXSURGEON_ORT(SetIntraOpNumThreads, OrtSessionOptions*, int);
  ONNXSURGEON_ORT_SKIP(25, 29);
  ONNXSURGEON_ORT(SessionGetInputCount, const OrtSession*, size_t*);
  ONNXSURGEON_ORT(SessionGetOutputCount, const OrtSession*, size_t*);
  ONNXSURGEON_ORT_SKIP(32, 35);
  ONNXSURGEON_ORT(SessionGetInputName, const OrtSession*, size_t, OrtAllocator*, char**);
  ONNXSURGEON_ORT(SessionGetOutputName, const OrtSession*, size_t, OrtAllocator*, char**);
  ONNXSURGEON_ORT_SKIP(38, 48);
  ONNXSURGEON_ORT(CreateTensorWithDataAsOrtValue, const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape, size_t rank, ONNXTensorElementDataType, OrtValue**);
  ONNXSURGEON_ORT_SKIP(50, 50);
  ONNXSURGEON_ORT(GetTensorMutableData, OrtValue*, void**);
  ONNXSURGEON_ORT_SKIP(52, 59);
  ONNXSURGEON_ORT(GetTensorElementType, const OrtTensorTypeAndShapeInfo*, ONNXTensorElementDataType*);
  ONNXSURGEON_ORT(GetDimensionsCount, const OrtTensorTypeAndShapeInfo*, size_t*);
  ONNXSURGEON_ORT(GetDimensions, const OrtTensorTypeAndShapeInfo*, int64_t*, size_t rank);
  ONNXSURGEON_ORT_SKIP(63, 64);
  ONNXSURGEON_ORT(GetTensorTypeAndShape, const OrtValue*, OrtTensorTypeAndShapeInfo**);
  ONNXSURGEON_ORT_SKIP(66, 68);
  ONNXSURGEON_ORT(CreateCpuMemoryInfo, OrtAllocatorType, OrtMemType, OrtMemoryInfo**);
  ONNXSURGEON_ORT_SKIP(70, 75);
  ONNXSURGEON_ORT(AllocatorFree, OrtAllocator*, void*);
  ONNXSURGEON_ORT_SKIP(77, 77);
  ONNXSURGEON_ORT(GetAllocatorWithDefaultOptions, OrtAllocator**);
  ONNXSURGEON_ORT_SKIP(79, 91);
  ONNXSURGEON_ORT_RELEASE(Env);
  ONNXSURGEON_ORT_RELEASE(Status);
  ONNXSURGEON_ORT_RELEASE(MemoryInfo);
  ONNXSURGEON_ORT_RELEASE(Session);
  ONNXSURGEON_ORT_RELEASE(Value);
  ONNXSURGEON_ORT_SKIP(97, 98);
  ONNXSURGEON_ORT_RELEASE(TensorTypeAndShapeInfo);
  ONNXSURGEON_ORT_RELEASE(SessionOptions);
  ONNXSURGEON_ORT_SKIP(101, 101);
} OrtApi;

typedef struct OrtApiBase {
  const OrtApi*(ONNXSURGEON_ORT_CALL* GetApi)(uint32_t version);
  const char*(ONNXSURGEON_ORT_CALL* GetVersionString)(void);
} OrtApiBase;

const OrtApiBase* ONNXSURGEON_ORT_CALL OrtGetApiBase(void);

#ifdef __cplusplus
}
static_assert(sizeof(OrtApi) == 102 * sizeof(void*), "the first version has 102 functions");
#endif
