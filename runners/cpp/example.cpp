// example TRAINER ROWS TARGETS EPOCHS SEED STATE: trains on raw arrays of one input and one head, and writes the state.
#include <cstdio>

#include "onnxsurgeon_runner.hpp"

using namespace onnxsurgeon;

static Array array_of(const nlohmann::json& each, const std::string& path) {
  Array array{each["dtype"], {0}, bytes_of(path)};
  std::size_t row = type_of(array.dtype).size;
  for (const auto& size : each["shape"]) array.shape.push_back(size), row *= size.get<std::size_t>();
  if (array.data.empty() || array.data.size() % row != 0) throw TrainerError(path + ": no whole rows");
  array.shape[0] = std::int64_t(array.data.size() / row);
  return array;
}

int main(int count, char** given) try {
  if (count != 7) throw TrainerError("usage: example TRAINER ROWS TARGETS EPOCHS SEED STATE");
  Trainer trainer(given[1]);
  const auto &input = trainer.description["inputs"][0], &head = trainer.description["targets"][0];
  const Arrays raw{{input["name"], array_of(input, given[2])}}, targets{{head["name"], array_of(head, given[3])}};
  const Arrays rows = trainer.prepare(raw);
  const long epochs = std::stol(given[4]);
  while (trainer.epoch < epochs) {
    const double loss = trainer.train(rows, targets, std::uint32_t(std::stoul(given[5])), epochs);
    std::printf("epoch %ld: loss %.9g\n", trainer.epoch, loss);
  }
  for (const auto& [name, value] : trainer.evaluate(rows, targets)) std::printf("%s %.9g\n", name.c_str(), value);
  for (const auto& [name, array] : trainer.predict(raw)) std::printf("output %s: %zu values\n", name.c_str(), array.size());
  trainer.save(given[6]);
  Trainer(given[1], given[6]).save(given[6]);  // what was saved can be resumed
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
