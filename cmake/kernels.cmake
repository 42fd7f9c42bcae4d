# Kernel files are free of torch and are found by name, anywhere in csrc: *_cpu.cpp is compiled once per instruction set,
# *_cuda.cu by nvcc, *_torch.cpp and bindings/ against torch. Adding an operator needs no line here.

option(PYNAS_WERROR "Warnings are errors; OFF for a compiler whose warnings nobody has seen" ON)
option(PYNAS_AVX512 "Kernels for AVX-512 too, on x86-64; OFF where no processor that runs the build has it" ON)
set(PYNAS_WARNINGS -Wall -Wextra $<$<BOOL:${PYNAS_WERROR}>:-Werror> -Wno-unknown-pragmas -Wno-psabi)

function(pynas_isa_library name)
  cmake_parse_arguments(ARG "" "" "FLAGS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/*_cpu.cpp)
  add_library(pynas_cpu_${name} OBJECT ${sources})
  target_include_directories(pynas_cpu_${name} PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
  target_compile_definitions(pynas_cpu_${name} PRIVATE PYNAS_ISA_NS=${name})
  # No trapping or errno semantics to keep; NaN and infinity keep theirs.
  target_compile_options(pynas_cpu_${name} PRIVATE ${PYNAS_WARNINGS} ${ARG_FLAGS} -O3 -fno-math-errno -fno-trapping-math)
  if(PYNAS_SANITIZE)
    # With what sanitizers add, -O3 compiles up to 15 times as long. The last level given counts.
    target_compile_options(pynas_cpu_${name} PRIVATE -O1)
  endif()
  target_sources(_C PRIVATE $<TARGET_OBJECTS:pynas_cpu_${name}>)
endfunction()

function(pynas_add_module)
  file(GLOB_RECURSE bindings CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/*_torch.cpp ${PROJECT_SOURCE_DIR}/csrc/bindings/*.cpp)
  file(GLOB_RECURSE plain CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/spaces/*.cpp ${PROJECT_SOURCE_DIR}/csrc/common/*.cpp)
  list(FILTER plain EXCLUDE REGEX "_cpu\\.cpp$")
  pybind11_add_module(_C MODULE NO_EXTRAS ${bindings} ${plain})
  # Whatever a file asks of torch, the compiler reads its headers and instantiates what their inline functions might need,
  # for 10 s. So several bindings are compiled as one; each keeps its private names in a namespace of its own.
  # CMAKE_UNITY_BUILD=OFF compiles each alone, which shows an include that it lacks.
  if(NOT DEFINED CMAKE_UNITY_BUILD)
    set_target_properties(_C PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 7)
  endif()
  set_source_files_properties(${plain} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON COMPILE_OPTIONS $<$<CONFIG:Release>:-O3>)
  target_include_directories(_C PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
  target_include_directories(_C SYSTEM PRIVATE ${TORCH_DIR}/include ${TORCH_DIR}/include/torch/csrc/api/include)
  target_link_libraries(_C PRIVATE ${TORCH_DIR}/lib/libc10.so ${TORCH_DIR}/lib/libtorch_cpu.so)
  target_compile_options(_C PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${PYNAS_WARNINGS}>)
  # Bindings check and dispatch, they do not compute: optimising torch's templates in each of them would take most of a build.
  target_compile_options(_C PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
  # at::parallel_for is inline and quietly serial without OpenMP. Compile only: the runtime is the one torch brings.
  target_compile_options(_C PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  target_compile_definitions(_C PRIVATE PYNAS_TORCH_VERSION="${TORCH_VERSION}"
    PYNAS_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
  set_target_properties(_C PROPERTIES INSTALL_RPATH "$ORIGIN/../torch/lib" CXX_VISIBILITY_PRESET hidden)

  pynas_isa_library(generic)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    pynas_isa_library(avx2 FLAGS -march=x86-64-v3)
    if(PYNAS_AVX512)
      pynas_isa_library(avx512 FLAGS -march=x86-64-v4 -mprefer-vector-width=512)
    else()
      target_compile_definitions(_C PRIVATE PYNAS_WITHOUT_AVX512)
    endif()
  endif()

  if(PYNAS_WITH_CUDA)
    file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/*_cuda.cu)
    add_library(pynas_cuda OBJECT ${kernels})
    target_include_directories(pynas_cuda PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
    set_target_properties(pynas_cuda PROPERTIES CUDA_STANDARD 17 CUDA_VISIBILITY_PRESET hidden)
    target_compile_options(pynas_cuda PRIVATE -Xcompiler=-Wall,-Wextra)
    if(PYNAS_WERROR)
      target_compile_options(pynas_cuda PRIVATE -Werror=all-warnings -Xcompiler=-Werror)
    endif()
    list(JOIN CMAKE_CUDA_ARCHITECTURES ";" archs)
    string(REPLACE ";" "," archs "${archs}")
    target_compile_definitions(_C PRIVATE PYNAS_WITH_CUDA PYNAS_CUDA_ARCHS="${archs}")
    target_sources(_C PRIVATE $<TARGET_OBJECTS:pynas_cuda>)
  endif()

  if(PYNAS_SANITIZE)
    foreach(target IN ITEMS _C pynas_cpu_generic pynas_cpu_avx2 pynas_cpu_avx512)
      if(TARGET ${target})
        target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${PYNAS_SANITIZE} -fno-omit-frame-pointer -g1>)
      endif()
    endforeach()
    target_link_options(_C PRIVATE -fsanitize=${PYNAS_SANITIZE})
  endif()
endfunction()
