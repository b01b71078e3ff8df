//! Graphs of a GPU: nodes in a chain, made once and set anew node by node.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{
    self, CUDA_KERNEL_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS, CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUgraphNode,
};
use cudarc::driver::{CudaContext, DriverError, result};

use super::driver::{Argument, Shape};
use super::gpu::{Gpu, failed};
use super::graphs::{GraphDriver, Operation};
use crate::error::KernelError;

/// A graph that the device can be given.
pub struct Graph {
    graph: CUgraph,
    /// Null until it is made.
    made: CUgraphExec,
    nodes: Vec<CUgraphNode>,
    context: Arc<CudaContext>,
}

// SAFETY: handles of the driver API may be used from any thread.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        // SAFETY: this is the handles' only owner. A graph that runs is freed when it is done.
        unsafe {
            if !self.made.is_null() {
                let _ = result::graph::exec_destroy(self.made);
            }
            let _ = result::graph::destroy(self.graph);
        }
    }
}

impl Graph {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the driver writes the handle.
        unsafe { sys::cuGraphCreate(&raw mut graph, 0) }.result()?;
        Ok(Self { graph, made: std::ptr::null_mut(), nodes: Vec::new(), context: Arc::clone(context) })
    }

    /// Adds a node behind the last.
    fn add(
        &mut self,
        node: impl FnOnce(*mut CUgraphNode, CUgraph, *const CUgraphNode, usize) -> sys::CUresult,
    ) -> Result<(), DriverError> {
        let mut handle = std::ptr::null_mut();
        let before = self.nodes.last();
        let (last, count) = (before.map_or(std::ptr::null(), std::ptr::from_ref), usize::from(before.is_some()));
        node(&raw mut handle, self.graph, last, count).result()?;
        self.nodes.push(handle);
        Ok(())
    }
}

fn memset(address: u64, bytes: usize) -> CUDA_MEMSET_NODE_PARAMS {
    CUDA_MEMSET_NODE_PARAMS { dst: address, pitch: 0, value: 0, elementSize: 1, width: bytes, height: 1 }
}

impl Gpu {
    /// Calls `use_it` with a launch as nodes want it, which is valid during the call.
    fn with_kernel<T>(
        &self,
        kernel: &'static str,
        Shape { grid: [x, y, z], block, shared }: Shape,
        arguments: &[Argument],
        use_it: impl FnOnce(&CUDA_KERNEL_NODE_PARAMS) -> T,
    ) -> Result<T, KernelError> {
        let mut arguments = arguments.to_vec();
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(Argument::pointer).collect();
        Ok(use_it(&CUDA_KERNEL_NODE_PARAMS {
            func: self.function(kernel)?,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: u32::try_from(shared).unwrap_or(u32::MAX),
            kernelParams: pointers.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        }))
    }
}

impl GraphDriver for Gpu {
    type Graph = Graph;

    /// Launches that are timed are given one by one.
    fn may_wait(&self) -> bool {
        !self.times()
    }

    unsafe fn graph(&self, operations: &[Operation]) -> Result<Graph, KernelError> {
        self.bind()?;
        let mut graph = Graph::new(self.context()).map_err(failed("cuGraphCreate"))?;
        for operation in operations {
            let added = match operation {
                Operation::Launch { kernel, shape, arguments } => {
                    self.with_kernel(kernel, *shape, arguments, |params| {
                        // SAFETY: the function takes these arguments by the caller's promise; the driver copies them.
                        graph.add(|node, graph, last, count| unsafe {
                            sys::cuGraphAddKernelNode_v2(node, graph, last, count, params)
                        })
                    })?
                }
                Operation::Clear { address, bytes } => {
                    let (params, context) = (memset(*address, *bytes), self.context().cu_ctx());
                    // SAFETY: the caller's promise.
                    graph.add(|node, graph, last, count| unsafe {
                        sys::cuGraphAddMemsetNode(node, graph, last, count, &raw const params, context)
                    })
                }
            };
            added.map_err(failed(operation.name()))?;
        }
        // SAFETY: the graph is whole.
        let made = unsafe { result::graph::instantiate(graph.graph, CUgraphInstantiate_flags(0)) };
        graph.made = made.map_err(failed("cuGraphInstantiate"))?;
        Ok(graph)
    }

    unsafe fn set(&self, graph: &mut Graph, index: usize, operation: &Operation) -> Result<(), KernelError> {
        self.bind()?;
        let (made, node) = (graph.made, graph.nodes[index]);
        match operation {
            Operation::Launch { kernel, shape, arguments } => {
                self.with_kernel(kernel, *shape, arguments, |params| {
                    // SAFETY: as in `graph`; the node is one of this graph.
                    unsafe { sys::cuGraphExecKernelNodeSetParams_v2(made, node, params) }.result()
                })?
            }
            Operation::Clear { address, bytes } => {
                let (params, context) = (memset(*address, *bytes), self.context().cu_ctx());
                // SAFETY: as above.
                unsafe { sys::cuGraphExecMemsetNodeSetParams(made, node, &raw const params, context) }.result()
            }
        }
        .map_err(failed(operation.name()))
    }

    unsafe fn replay(&self, graph: &mut Graph) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the graph and the stream are live, and of one context.
        unsafe { result::graph::launch(graph.made, self.stream()) }.map_err(failed("cuGraphLaunch"))
    }
}
