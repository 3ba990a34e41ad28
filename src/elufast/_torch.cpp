// PyTorch's elu and elu_backward of CPU tensors, computed by elufast. SELU and CELU are elu with other scalars there.
//
// torch.py builds this file and hands over two functions of _core.pyx. TensorIterator does all else, as for PyTorch's
// own kernels: results allocated and resized, overlap, broadcasting, promotion, the order of axes, and the threads. Its
// for_each is compiled into PyTorch; at::parallel_for in this file would start the threads of another OpenMP.
#include <ATen/EmptyTensor.h>
#include <ATen/TensorIterator.h>
#include <torch/library.h>

#define SCALARS const Scalar &alpha, const Scalar &scale, const Scalar &input_scale

namespace {

using at::Scalar, at::Tensor, at::TensorIterator;

enum Mode { FORWARD, BACKWARD, FROM_OUTPUT };

struct Plan {
    alignas(64) char bytes[256];
};
void (*prepare)(Plan *, Mode, double alpha, double scale, double input_scale, int code);
void (*run)(const Plan *, const char *x, ptrdiff_t x_stride, const char *grad, ptrdiff_t grad_stride, char *out,
            ptrdiff_t out_stride, ptrdiff_t n);
void (*run_strided)(const Plan *, int axes, const ptrdiff_t *shape, char **data, const ptrdiff_t **strides);

int code_of(at::ScalarType type) {
    return type == at::kFloat ? 0 : type == at::kDouble ? 1 : type == at::kHalf ? 2 : type == at::kBFloat16 ? 3 : -1;
}

struct Function {
    Mode mode;
    double alpha, scale, input_scale;

    Plan plan(int code) const {
        Plan p; // an output where alpha is 0 has no y / alpha; all that counts then is x > 0
        prepare(&p, mode == FROM_OUTPUT && alpha == 0 ? BACKWARD : mode, alpha, scale, input_scale, code);
        return p;
    }
    // Elements that repay a thread. Up to as many as alone() one does all: where memory is the limit, as in PyTorch.
    int64_t share(int code) const { return code == 1 && mode != FROM_OUTPUT ? 16384 : 32768; }
    int64_t alone(int code) const { return mode == FROM_OUTPUT ? 32768 : 2 * share(code); }
};

// PyTorch 2.6 has names of axes, 2.13 none.
template <class Any> bool flat(const Any &x) {
    if constexpr (requires { x.has_names(); })
        return x.is_contiguous() && !x.has_names();
    return x.is_contiguous();
}

// The result: out, or where that is undefined a new tensor.
Tensor call(const Function &f, const Tensor &x, const Tensor *grad, Tensor out) {
    int code = code_of(x.scalar_type());
    if (!out.defined() && code >= 0 && x.numel() <= f.alone(code) && flat(x) &&
        (!grad || (grad->scalar_type() == x.scalar_type() && grad->sizes() == x.sizes() && flat(*grad)))) {
        const Plan plan = f.plan(code);
        const ptrdiff_t size = x.element_size();
        out = at::detail::empty_cpu(x.sizes(), x.scalar_type());
        run(&plan, (const char *)x.const_data_ptr(), size, grad ? (const char *)grad->const_data_ptr() : nullptr, size,
            (char *)out.mutable_data_ptr(), size, x.numel());
        return out;
    }
    auto iter = grad ? TensorIterator::borrowing_binary_op(out, *grad, x) : TensorIterator::unary_op(out, x);
    code = code_of(iter.dtype());
    TORCH_CHECK_NOT_IMPLEMENTED(code >= 0, '"', grad ? "elu_backward_cpu" : "elu_cpu", "\" not implemented for '",
                                toString(iter.dtype()), "'");
    const Plan plan = f.plan(code);
    const int operands = iter.ntensors(), last = operands - 1; // out, grad if any, x
    auto loop = [&](char **data, const int64_t *strides, int64_t n, int64_t rows) {
        if (rows == 1)
            return run(&plan, data[last], strides[last], grad ? data[1] : nullptr, strides[1], data[0], strides[0], n);
        const ptrdiff_t shape[] = {rows, n};
        ptrdiff_t steps[3][2];
        for (int k = 0; k < operands; k++)
            steps[k][0] = strides[operands + k], steps[k][1] = strides[k];
        char *of[] = {data[last], grad ? data[1] : nullptr, nullptr, data[0]};
        const ptrdiff_t *steps_of[] = {steps[last], steps[1], nullptr, steps[0]};
        run_strided(&plan, 2, shape, of, steps_of);
    };
    if (iter.numel() <= f.alone(code))
        iter.serial_for_each(loop, {0, iter.numel()});
    else
        iter.for_each(loop, f.share(code));
    iter.cast_outputs();
    return iter.output();
}

Tensor forward(const Tensor &x, SCALARS, const Tensor &out) {
    return call({FORWARD, alpha.toDouble(), scale.toDouble(), input_scale.toDouble()}, x, nullptr, out);
}

Tensor backward(const Tensor &grad, SCALARS, bool is_result, const Tensor &x, const Tensor &out) {
    TORCH_CHECK(!is_result || alpha.toDouble() >= 0,
                "In-place elu backward calculation is triggered with a negative slope which is not supported. This is "
                "caused by calling in-place forward function with a negative slope, please call out-of-place version "
                "instead.");
    const Mode mode = is_result ? FROM_OUTPUT : BACKWARD;
    return call({mode, alpha.toDouble(), scale.toDouble(), input_scale.toDouble()}, x, &grad, out);
}

Tensor elu(const Tensor &x, SCALARS) { return forward(x, alpha, scale, input_scale, Tensor()); }
Tensor &elu_(Tensor &x, SCALARS) { return forward(x, alpha, scale, input_scale, x), x; }
Tensor &elu_out(const Tensor &x, SCALARS, Tensor &out) { return forward(x, alpha, scale, input_scale, out), out; }

Tensor elu_backward(const Tensor &grad, SCALARS, bool is_result, const Tensor &x) {
    return backward(grad, alpha, scale, input_scale, is_result, x, Tensor());
}
Tensor &elu_backward_out(const Tensor &grad, SCALARS, bool is_result, const Tensor &x, Tensor &out) {
    return backward(grad, alpha, scale, input_scale, is_result, x, out), out;
}

torch::Library *library; // never destroyed at exit, when parts of PyTorch may be gone

struct Quiet : c10::WarningHandler { // PyTorch warns of an operator that has a kernel already
    void process(const c10::Warning &) override {}
};

} // namespace

extern "C" void elufast_uninstall() { delete std::exchange(library, nullptr); }

// Returns what went wrong, or nothing.
extern "C" const char *elufast_install(decltype(prepare) plan_scalars, decltype(run) one, decltype(run_strided) many,
                                       size_t plan_bytes) {
    static std::string error;
    Quiet quiet;
    prepare = plan_scalars;
    run = one, run_strided = many;
    try {
        TORCH_CHECK(plan_bytes <= sizeof(Plan), "a plan of elufast does not fit");
        c10::WarningUtils::WarningHandlerGuard guard(&quiet);
        library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
        library->impl("elu", elu).impl("elu.out", elu_out).impl("elu_", elu_);
        library->impl("elu_backward", elu_backward).impl("elu_backward.grad_input", elu_backward_out);
        return nullptr;
    } catch (const std::exception &e) {
        elufast_uninstall();
        return (error = e.what()).c_str();
    }
}
