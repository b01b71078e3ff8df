// A libcuda without a GPU, for tests: device memory is host memory, kernels do nothing but for `difference` (its arguments
// are those of loss.cu), copies from page-locked memory take place when somebody waits for their stream, and environment
// variables say what fails. With STUB every function answers as the toolkit's stub
// does; with HOLLOW there is none.
#ifndef HOLLOW
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef STUB
#define SETTING(name, otherwise) 34
#else
#define SETTING(name, otherwise) setting(name, otherwise)
#endif

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static long modules, launches, allocations, initialised, locked, freed, late, torn, held, graphs, replays, changes;

// Says that a call has reached the driver before the process ends.
__attribute__((destructor)) static void report(void) {
  const char *path = getenv("FAKE_LOG");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  fprintf(file, "{\"initialised\":%ld,\"modules\":%ld,\"launches\":%ld,", initialised, modules, launches);
  fprintf(file, "\"locked\":%ld,\"freed\":%ld,\"late\":%ld,\"torn\":%ld,", locked, freed, late, torn);
  fprintf(file, "\"graphs\":%ld,\"replays\":%ld,\"changes\":%ld}", graphs, replays, changes);
  fclose(file);
}

int cuInit(unsigned flags) {
  (void)setting;
  initialised += flags == 0;
  return SETTING("FAKE_INIT", 0);
}
int cuDriverGetVersion(int *version) {
  *version = setting("FAKE_DRIVER", 12040);
  return SETTING("FAKE_VERSION_RESULT", 0);
}
int cuDeviceGetCount(int *count) {
  *count = setting("FAKE_COUNT", 1);
  return SETTING("FAKE_COUNT_RESULT", 0);
}
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return SETTING("FAKE_DEVICE_RESULT", 0);
}
int cuDeviceGetName(char *name, int size, int device) {
  const char *text = getenv("FAKE_NAME");
  snprintf(name, size, "%s %d", text ? text : "Fake GPU", device);
  return SETTING("FAKE_NAME_RESULT", 0);
}
// Device 0 has FAKE_CAPABILITY; the others have 8.6.
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  long capability = device == 0 ? setting("FAKE_CAPABILITY", 86) : 86;
  switch (attribute) {
  case 16: *value = 84; break;                // multiprocessors
  case 38: *value = 6 << 20; break;           // second-level cache
  case 75: *value = capability / 10; break;   // compute capability, major
  case 76: *value = capability % 10; break;   // compute capability, minor
  case 97: *value = 99 << 10; break;          // shared memory of a block, opt-in
  case 115: *value = setting("FAKE_POOLS", 1); break; // memory pools
  default: *value = 0;
  }
  return SETTING("FAKE_ATTRIBUTE_RESULT", 0);
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = (size_t)setting("FAKE_MIB", 8192) << 20;
  return SETTING("FAKE_MEMORY_RESULT", 0);
}

int cuGetErrorString(int code, const char **text) {
  (void)code;
  *text = "as the test asked";
  return 0;
}

static char a_context, streams[64], a_module, any_kernel, difference;
static __thread void *current;

int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = &a_context;
  held += 1;
  return SETTING("FAKE_RETAIN", 0);
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  held -= 1;
  return SETTING("FAKE_RELEASE", 0);
}
int cuCtxGetCurrent(void **context) { *context = current; return SETTING("FAKE_CURRENT", 0); }
int cuCtxSetCurrent(void *context) { current = context; return SETTING("FAKE_CURRENT", 0); }
int cuCtxSynchronize(void) { return SETTING("FAKE_SYNCHRONISE", 0); }
int cuStreamCreate(void **stream, unsigned flags) {
  static int made;
  (void)flags;
  *stream = &streams[made++ % 64];
  return SETTING("FAKE_STREAM", 0);
}
int cuStreamDestroy_v2(void *stream) { (void)stream; return SETTING("FAKE_STREAM", 0); }

// Page-locked memory, and copies from it that nobody has waited for. More of either than fits here is not kept apart.
#define MOST 256
static struct { char *start; size_t bytes; } pinned[MOST];
static struct { char *to; const char *from; size_t bytes; void *stream; } waiting[MOST];
static int waits;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void copy_all(void *stream) {
  int kept = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < waits; i++) {
    if (waiting[i].stream == stream) memcpy(waiting[i].to, waiting[i].from, waiting[i].bytes);
    else waiting[kept++] = waiting[i];
  }
  waits = kept;
  pthread_mutex_unlock(&lock);
}
static int is_pinned(const char *data) {
  for (int i = 0; i < MOST; i++)
    if (pinned[i].start && data >= pinned[i].start && data < pinned[i].start + pinned[i].bytes) return 1;
  return 0;
}
// Whether a copy that nobody has waited for reads or writes this memory.
static int in_use(const char *start, size_t bytes) {
  for (int i = 0; i < waits; i++)
    if ((waiting[i].from >= start && waiting[i].from < start + bytes) || waiting[i].to == start) return 1;
  return 0;
}
int cuStreamSynchronize(void *stream) {
  copy_all(stream);
  return SETTING("FAKE_SYNCHRONISE", 0);
}
int cuMemHostAlloc(void **start, size_t bytes, unsigned flags) {
  (void)flags;
  if (setting("FAKE_HOST_ALLOC", 0)) return setting("FAKE_HOST_ALLOC", 0);
  *start = malloc(bytes);
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MOST; i++)
    if (!pinned[i].start) { pinned[i].start = *start; pinned[i].bytes = bytes; break; }
  locked += 1;
  pthread_mutex_unlock(&lock);
  return 0;
}
int cuMemFreeHost(void *start) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MOST; i++)
    if (pinned[i].start == start) { torn += in_use(start, pinned[i].bytes); pinned[i].start = NULL; break; }
  freed += 1;
  pthread_mutex_unlock(&lock);
  free(start);
  return 0;
}

// An event is where it was last recorded.
int cuEventCreate(void ***event, unsigned flags) {
  (void)flags;
  *event = calloc(1, sizeof **event);
  return SETTING("FAKE_EVENT", 0);
}
int cuEventDestroy_v2(void **event) {
  torn += held <= 0; // its context is gone
  free(event);
  return 0;
}
int cuEventRecord(void **event, void *stream) {
  *event = stream;
  return SETTING("FAKE_WAIT", 0);
}
int cuStreamWaitEvent(void *stream, void **event, unsigned flags) {
  (void)flags;
  if (*event != stream) copy_all(*event);
  return SETTING("FAKE_WAIT", 0);
}

int cuModuleLoadData(void **module, const void *image) {
  unsigned magic;
  memcpy(&magic, image, sizeof magic);
  if (magic != 0xBA55ED50u) return 200; // not a fatbin
  *module = &a_module;
  modules += 1;
  return SETTING("FAKE_MODULE", 0);
}
int cuModuleUnload(void *module) { (void)module; return SETTING("FAKE_UNLOAD", 0); }
int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  *function = strcmp(name, "difference") ? &any_kernel : &difference;
  return SETTING("FAKE_FUNCTION", 0);
}
int cuFuncGetAttribute(int *value, int attribute, void *function) {
  (void)attribute, (void)function;
  *value = 0;
  return SETTING("FAKE_FUNCTION_ATTRIBUTE", 0);
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
  (void)function, (void)attribute;
  return value > 99 << 10 ? 1 : SETTING("FAKE_FUNCTION_ATTRIBUTE", 0);
}

int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
  allocations += 1;
  if (allocations == setting("FAKE_ALLOC_AT", 0)) return 2;
  *address = (unsigned long long)(size_t)calloc(1, bytes);
  return *address ? SETTING("FAKE_ALLOC", 0) : 2;
}
int cuMemAllocAsync(unsigned long long *address, size_t bytes, void *stream) {
  (void)stream;
  return cuMemAlloc_v2(address, bytes);
}
int cuMemFree_v2(unsigned long long address) {
  pthread_mutex_lock(&lock);
  torn += in_use((char *)(size_t)address, 1);
  pthread_mutex_unlock(&lock);
  free((void *)(size_t)address);
  return SETTING("FAKE_FREE", 0);
}
int cuMemFreeAsync(unsigned long long address, void *stream) { (void)stream; return cuMemFree_v2(address); }
int cuMemGetInfo_v2(size_t *available, size_t *total) {
  *total = (size_t)setting("FAKE_MIB", 8192) << 20;
  *available = setting("FAKE_AVAILABLE", (long)*total);
  return SETTING("FAKE_INFO", 0);
}
int cuMemsetD8Async(unsigned long long address, unsigned char value, size_t bytes, void *stream) {
  (void)stream;
  memset((void *)(size_t)address, value, bytes);
  return SETTING("FAKE_COPY", 0);
}
int cuMemcpyHtoDAsync_v2(unsigned long long address, const void *data, size_t bytes, void *stream) {
  pthread_mutex_lock(&lock);
  int later = is_pinned(data) && waits < MOST;
  if (later) {
    waiting[waits].to = (char *)(size_t)address, waiting[waits].from = data;
    waiting[waits].bytes = bytes, waiting[waits++].stream = stream;
    late += 1;
  }
  pthread_mutex_unlock(&lock);
  if (!later) memcpy((void *)(size_t)address, data, bytes);
  return SETTING("FAKE_COPY", 0);
}
int cuMemcpyDtoHAsync_v2(void *out, unsigned long long address, size_t bytes, void *stream) {
  copy_all(stream);
  memcpy(out, (void *)(size_t)address, bytes);
  return SETTING("FAKE_COPY", 0);
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  (void)stream, (void)extra;
  launches += 1;
  if (launches == setting("FAKE_LAUNCH_AT", 0)) return 719;
  // A GPU's limits on a launch.
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || bx * by * bz > 1024 || shared > 99 << 10) return 1;
  if (function == &difference && !getenv("FAKE_IDLE")) {
    float **a = arguments[0], **b = arguments[1], **out = arguments[3];
    for (unsigned long long at = 0; at < *(unsigned long long *)arguments[2]; at++) (*out)[at] = (*a)[at] - (*b)[at];
  }
  return SETTING("FAKE_LAUNCH", 0);
}

// Graphs: nodes in a chain, done one after the other in a launch. A graph and what is made of it are one. Of a kernel's
// arguments, those of `difference` are kept.
struct kernel {
  void *function;
  unsigned grid[3], block[3], shared;
  void **arguments, **extra, *kernel, *context;
};
struct fill {
  unsigned long long address;
  size_t pitch;
  unsigned value, size;
  size_t width, height;
};
struct node {
  struct node *next;
  int is_kernel;
  struct kernel kernel;
  unsigned long long arguments[4];
  struct fill fill;
};
struct graph { struct node *first, *last; int owners; };

static int set_kernel(struct node *node, const struct kernel *kernel) {
  node->kernel = *kernel;
  if (kernel->function == &difference)
    for (int i = 0; i < 4; i++) memcpy(&node->arguments[i], kernel->arguments[i], 8);
  return kernel->extra || kernel->kernel || kernel->context;
}
static int set_fill(struct node *node, const struct fill *fill, void *context) {
  node->fill = *fill;
  return context != &a_context || fill->value || fill->size != 1 || fill->height != 1 || !fill->width;
}
// Behind the last and behind nothing else.
static struct node *add_node(struct graph *graph, struct node **before, size_t count, int is_kernel) {
  if (count != (graph->last ? 1 : 0) || (count && *before != graph->last)) return NULL;
  struct node *node = calloc(1, sizeof *node);
  node->is_kernel = is_kernel;
  if (graph->last) graph->last->next = node;
  else graph->first = node;
  return graph->last = node;
}
int cuGraphCreate(struct graph **graph, unsigned flags) {
  (void)flags;
  *graph = calloc(1, sizeof **graph);
  (*graph)->owners = 1;
  graphs += 1;
  return SETTING("FAKE_GRAPH", 0);
}
int cuGraphAddKernelNode_v2(struct node **node, struct graph *graph, struct node **before, size_t count,
                            const struct kernel *kernel) {
  *node = add_node(graph, before, count, 1);
  return *node ? set_kernel(*node, kernel) : 1;
}
int cuGraphAddMemsetNode(struct node **node, struct graph *graph, struct node **before, size_t count,
                         const struct fill *fill, void *context) {
  *node = add_node(graph, before, count, 0);
  return *node ? set_fill(*node, fill, context) : 1;
}
int cuGraphInstantiateWithFlags(struct graph **made, struct graph *graph, unsigned long long flags) {
  (void)flags;
  graph->owners += 1;
  *made = graph;
  return SETTING("FAKE_INSTANTIATE", 0);
}
int cuGraphExecKernelNodeSetParams_v2(struct graph *made, struct node *node, const struct kernel *kernel) {
  changes += 1;
  (void)made;
  return node->is_kernel && !SETTING("FAKE_SET", 0) ? set_kernel(node, kernel) : 1;
}
int cuGraphExecMemsetNodeSetParams(struct graph *made, struct node *node, const struct fill *fill, void *context) {
  changes += 1;
  (void)made;
  return node->is_kernel || SETTING("FAKE_SET", 0) ? 1 : set_fill(node, fill, context);
}
int cuGraphLaunch(struct graph *made, void *stream) {
  replays += 1;
  for (struct node *node = made->first; node; node = node->next) {
    struct kernel *k = &node->kernel;
    void *arguments[4];
    for (int i = 0; i < 4; i++) arguments[i] = &node->arguments[i];
    int code = node->is_kernel ? cuLaunchKernel(k->function, k->grid[0], k->grid[1], k->grid[2], k->block[0],
                                                k->block[1], k->block[2], k->shared, stream, arguments, NULL)
                               : cuMemsetD8Async(node->fill.address, 0, node->fill.width, stream);
    if (code) return code;
  }
  return SETTING("FAKE_REPLAY", 0);
}
static int drop_graph(struct graph *graph) {
  if (--graph->owners) return 0;
  torn += held <= 0; // its context is gone
  graphs -= 1;
  for (struct node *node = graph->first, *next; node; node = next) next = node->next, free(node);
  free(graph);
  return 0;
}
int cuGraphDestroy(struct graph *graph) { return drop_graph(graph); }
int cuGraphExecDestroy(struct graph *made) { return drop_graph(made); }
#endif
