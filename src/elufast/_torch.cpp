// PyTorch's elu and elu_backward of CPU tensors, computed by elufast. SELU and CELU are elu with other scalars there.
//
// torch.py builds this file and hands over a function of _capi.pyx. TensorIterator does all else, as for PyTorch's
// own kernels: results allocated and resized, overlap, broadcasting, promotion, the order of axes, and the threads. Its
// for_each is compiled into PyTorch; at::parallel_for in this file would start the threads of another OpenMP.
#include <ATen/EmptyTensor.h>
#include <ATen/TensorIterator.h>
#include <torch/library.h>

#define SCALARS const Scalar &alpha, const Scalar &scale, const Scalar &input_scale
#define NUMBERS alpha.toDouble(), scale.toDouble(), input_scale.toDouble()

namespace {

using at::IntArrayRef, at::Scalar, at::Tensor, at::TensorIterator, at::TensorIteratorBase, at::TensorOptions;

enum Mode { FORWARD, BACKWARD, FROM_OUTPUT };

// The operands are x, grad, no bias, and out.
static_assert(sizeof(int64_t) == sizeof(ptrdiff_t));
void (*compute)(int mode, int code, int axes, int unit, double alpha, double scale, double input_scale,
                const int64_t *shape, const void *const *data, const int64_t *const *strides);

int code_of(at::ScalarType type) {
    return type == at::kFloat ? 0 : type == at::kDouble ? 1 : type == at::kHalf ? 2 : type == at::kBFloat16 ? 3 : -1;
}

struct Function {
    Mode mode;
    double alpha, scale, input_scale;

    // Elements that repay a thread. Up to as many as alone() one does all: where memory is the limit, as in PyTorch.
    int64_t share(int code) const { return code == 1 && mode != FROM_OUTPUT ? 16384 : 32768; }
    int64_t alone(int code) const { return mode == FROM_OUTPUT ? 32768 : 2 * share(code); }
};

// A new result would go through the dispatcher, which takes as long as a hundred elements.
template <class> struct Allocating;
template <class... Names> // of axes: PyTorch 2.6 has them, 2.13 not
struct Allocating<void (TensorIteratorBase::*)(int64_t, IntArrayRef, IntArrayRef, TensorOptions, Names...)> final
    : TensorIteratorBase {
    Tensor out;
    const Tensor &maybe_get_output(int64_t) override { return out; }
    void set_output_raw_strided(int64_t k, IntArrayRef sizes, IntArrayRef strides, TensorOptions options,
                                Names... names) override {
        out = strides.empty() ? at::detail::empty_cpu(sizes, options)
                              : at::detail::empty_strided_cpu(sizes, strides, options);
        ((names.empty() || internal_set_names_inplace(out, names).defined()), ...);
        TensorIteratorBase::set_output_raw_strided(k, sizes, strides, options, names...);
    }
};
using Iterator = Allocating<decltype(&TensorIteratorBase::set_output_raw_strided)>;

// Elements lie as in a new tensor, or so but for gaps: neither needs a TensorIterator, half the time of a small call.
enum Layout { FLAT, GAPS, OTHER };
template <class Any> Layout layout(const Any &x) {
    if constexpr (requires { x.has_names(); })
        if (x.has_names())
            return OTHER;
    if (x.is_contiguous())
        return FLAT;
    const auto strides = x.strides();
    bool falling = strides.back() > 0 && strides.size() <= 64;
    for (size_t i = 1; i < strides.size(); i++)
        falling = falling && strides[i - 1] > strides[i];
    return falling ? GAPS : OTHER;
}

// Fill out, which is made where it is undefined. Without a gradient grad is x.
Tensor &call(const Function &f, const Tensor &x, const Tensor &grad, Tensor &out) {
    int code = code_of(x.scalar_type());
    const bool fresh = !out.defined();
    if (code >= 0 && x.numel() <= f.alone(code) && (fresh || out.is_same(x)) && grad.scalar_type() == x.scalar_type() &&
        grad.sizes() == x.sizes()) {
        const Layout how = std::max(layout(x), layout(grad));
        if (how == FLAT || (how == GAPS && fresh)) {
            if (fresh)
                out = at::detail::empty_cpu(x.sizes(), x.scalar_type());
            const int64_t n = x.numel(), one = 1, *flat[] = {&one, &one, nullptr, &one};
            const int64_t *gaps[] = {x.strides().data(), grad.strides().data(), nullptr, out.strides().data()};
            const void *data[] = {x.const_data_ptr(), grad.const_data_ptr(), nullptr, out.mutable_data_ptr()};
            compute(f.mode, code, how == FLAT ? 1 : x.dim(), x.element_size(), f.alpha, f.scale, f.input_scale,
                    how == FLAT ? &n : x.sizes().data(), data, how == FLAT ? flat : gaps);
            return out;
        }
    }
    Iterator allocating;
    TensorIterator usual;
    TensorIteratorBase &iter = fresh ? (TensorIteratorBase &)allocating : usual;
    f.mode ? iter.build_borrowing_binary_op(out, grad, x) : iter.build_borrowing_unary_op(out, x);
    code = code_of(iter.dtype());
    TORCH_CHECK_NOT_IMPLEMENTED(code >= 0, '"', f.mode ? "elu_backward_cpu" : "elu_cpu", "\" not implemented for '",
                                toString(iter.dtype()), "'");
    auto loop = [&, operands = iter.ntensors()](char **data, const int64_t *strides, int64_t n, int64_t rows) {
        const int64_t shape[] = {n, rows}, *outer = strides + operands;
        const int of_x = operands - 1; // the others are grad, if any, and out
        const int64_t steps[3][2] = {{strides[of_x], outer[of_x]}, {strides[1], outer[1]}, {strides[0], outer[0]}};
        const int64_t *all_steps[] = {steps[0], steps[1], nullptr, steps[2]};
        const void *all[] = {data[of_x], data[1], nullptr, data[0]};
        compute(f.mode, code, rows == 1 ? 1 : 2, 1, f.alpha, f.scale, f.input_scale, shape, all, all_steps);
    };
    if (iter.numel() <= f.alone(code))
        iter.serial_for_each(loop, {0, iter.numel()});
    else
        iter.for_each(loop, f.share(code));
    iter.cast_outputs();
    return fresh ? out = allocating.out : out;
}

Tensor &elu_out(const Tensor &x, SCALARS, Tensor &out) { return call({FORWARD, NUMBERS}, x, x, out); }
Tensor &elu_(Tensor &x, SCALARS) { return elu_out(x, alpha, scale, input_scale, x); }
Tensor elu(const Tensor &x, SCALARS) {
    Tensor out;
    return elu_out(x, alpha, scale, input_scale, out);
}

Tensor &elu_backward_out(const Tensor &grad, SCALARS, bool is_result, const Tensor &x, Tensor &out) {
    TORCH_CHECK(!is_result || alpha.toDouble() >= 0,
                "In-place elu backward calculation is triggered with a negative slope which is not supported. This is "
                "caused by calling in-place forward function with a negative slope, please call out-of-place version "
                "instead.");
    return call({is_result ? FROM_OUTPUT : BACKWARD, NUMBERS}, x, grad, out);
}
Tensor elu_backward(const Tensor &grad, SCALARS, bool is_result, const Tensor &x) {
    Tensor out;
    return elu_backward_out(grad, alpha, scale, input_scale, is_result, x, out);
}

torch::Library *library; // never destroyed at exit, when parts of PyTorch may be gone

struct Quiet : c10::WarningHandler { // PyTorch warns of an operator that has a kernel already
    void process(const c10::Warning &) override {}
};

} // namespace

extern "C" void elufast_uninstall() { delete std::exchange(library, nullptr); }

extern "C" const char *elufast_install(decltype(compute) tensors) { // returns what went wrong, or nothing
    static std::string error;
    Quiet quiet;
    c10::WarningUtils::WarningHandlerGuard guard(&quiet);
    compute = tensors;
    try {
        library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
        library->impl("elu", elu).impl("elu.out", elu_out).impl("elu_", elu_);
        library->impl("elu_backward", elu_backward).impl("elu_backward.grad_input", elu_backward_out);
        return nullptr;
    } catch (const std::exception &e) {
        elufast_uninstall();
        return (error = e.what()).c_str();
    }
}
