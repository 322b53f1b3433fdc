export default { optimizeDeps: { exclude: ["hydrogen-view-sdk"] }, build: { target: "esnext" } };
